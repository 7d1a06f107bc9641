"""Metrics, traces and logs of the functions."""
