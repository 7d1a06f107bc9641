"""Recommendations: features, stores, ranking, and the contracts between the functions. Imported, never run."""

__version__ = "0.2.0"
