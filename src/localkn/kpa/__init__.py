"""
Knative's pod autoscaler (KPA) as a pure module: no clock, no I/O.

`settings` turns a revision's annotations into numbers, `windows` averages what was measured, `autoscaler`
decides. `python -m localkn.kpa < traces.jsonl` replays recorded traces through the same three.
"""

from localkn.kpa.autoscaler import Autoscaler, ScaleDecision
from localkn.kpa.settings import Settings

__all__ = ["Autoscaler", "ScaleDecision", "Settings"]
