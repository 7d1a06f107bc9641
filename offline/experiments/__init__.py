"""The analysis of experiments: intervals that hold at every look, checks, plans."""
