"""Exposures: which items recommend showed to which user, and what the user did with them."""
