"""Pipelines of other domains on the chassis, as models for one's own."""
