"""The three functions in one process."""
