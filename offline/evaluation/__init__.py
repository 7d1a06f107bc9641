"""How good a model is: hold-outs, measures, baselines, the table; in process and through the served path."""
