"""Sorts customers' messages: two models in parallel, then a combiner."""
