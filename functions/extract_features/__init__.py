"""User id in; features and recent history out."""
