"""The library of the functions: features, stores, ranking, and the contracts between the functions."""

__version__ = "0.2.0"
