"""The serving shell: what every function needs around its handler, and nothing of what a handler does."""
