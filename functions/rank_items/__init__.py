"""Features and history in; the best items out."""
