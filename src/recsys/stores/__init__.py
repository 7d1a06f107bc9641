"""Where features are computed from: one port, several stores behind it."""
