"""Training: it reads interactions and writes a model artefact. No serving function imports this package."""
