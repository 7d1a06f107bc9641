"""Whether a deployment does what it should, found out by doing it."""
