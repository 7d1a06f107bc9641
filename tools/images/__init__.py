"""Container images of the functions: builds them and checks their content."""
