"""Container images of the functions: building them, and showing what they hold."""
