"""The model, as serving and training both use it: the artefact, the scoring, and the choice of the best items."""
