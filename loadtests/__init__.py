"""Load tests: generate load, check every answer, and report."""
