"""Acceptance test of a deployment: use it, load it and disturb it, and check the result."""
