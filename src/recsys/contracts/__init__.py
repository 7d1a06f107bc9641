"""The bodies and events that the three functions exchange."""
