"""Interaction files in their published formats, read line by line; a malformed line stops the import by name."""
