"""Load: what drives the pipeline, and what it is compared with."""
