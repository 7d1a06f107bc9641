"""Benchmarks. Each compares systems in alternating rounds of one run and reports medians and ratios."""
