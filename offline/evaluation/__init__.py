"""Evaluation of a model, in process or through a running pipeline: hold-outs, measures, baselines and reports."""
