"""`./run.sh cluster doctor`: check a cluster before and after the pipeline is deployed there."""
