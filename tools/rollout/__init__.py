"""
A watched rollout: a candidate revision takes over in steps while it keeps its limits, or is rolled back.

`comparison`, `decisions` and `undo` are pure; `trials` sends requests; `journal` survives a kill; `conductor` joins
them.
"""
