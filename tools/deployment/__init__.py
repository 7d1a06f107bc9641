"""A deployment, on a cluster or on this machine, as kn sees it."""
