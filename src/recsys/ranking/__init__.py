"""The model as both sides use it, serving and training: its artefact, how it scores, how it picks the best."""
