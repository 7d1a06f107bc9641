"""
Rolling out a revision under watch: a candidate takes over in steps while it keeps its limits, or not at all.

`comparing` and `deciding` are pure; `kn` and `asking` talk to the world; `running` joins them.
"""
