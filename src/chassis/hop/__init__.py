"""Calls from one function to another: retries, breaker, deadline."""
