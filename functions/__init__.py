"""The three functions. None imports another."""
