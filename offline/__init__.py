"""Data in, trained artefact out. No function imports it."""
