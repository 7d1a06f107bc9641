"""The ranking function: it takes features and history, and returns the best items."""
