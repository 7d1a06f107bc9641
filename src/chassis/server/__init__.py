"""The server of a function: everything around its handler."""
