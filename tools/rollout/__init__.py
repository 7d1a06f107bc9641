"""
A watched rollout: a candidate revision takes over in steps while it keeps its limits, or is rolled back.

`comparing`, `deciding` and `undoing` are pure; `asking` sends requests; `journal` survives a kill; `running` joins them.
"""
