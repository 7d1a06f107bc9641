"""Contracts, declaration, records, features, experiments and metrics, on which all parts of the pipeline agree."""

__version__ = "0.2.0"
