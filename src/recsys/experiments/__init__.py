"""Experiments: their declaration, and the arm of a user."""
