"""What the functions tell about themselves."""
