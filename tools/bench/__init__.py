"""Benchmarks: ratios measured in one run, in alternating rounds, medians quoted."""
