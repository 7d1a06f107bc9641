"""The declaration of a pipeline: what a team says about its events, attributes, rules and training."""
