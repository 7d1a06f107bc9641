"""
FastAPI services that do the pipeline's work, in one process and in three, as baselines for the benchmarks.

They use the same store, features and model, and return the same answers. Only the serving differs.
"""
