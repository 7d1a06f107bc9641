"""Readers of interaction files in their published formats. An error about a malformed line names file and line."""
