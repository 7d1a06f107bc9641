"""
The states of a service, and the transitions between them.

    new --start--> starting --opened--> ready --drain--> draining --stop--> stopped

Two rules extend this line: a start that failed leaves the service new, so that it can be retried; and a drain or a stop
during a start holds, however the start ends.
"""

from collections.abc import Mapping
from typing import Final, Literal

ServiceState = Literal["new", "starting", "ready", "draining", "stopped"]
ServiceEvent = Literal["start", "opened", "failed", "drain", "stop"]

LIFECYCLE: Final[Mapping[tuple[ServiceState, ServiceEvent], ServiceState]] = {
    ("new", "start"): "starting",
    ("new", "drain"): "draining",
    ("new", "stop"): "stopped",
    ("starting", "opened"): "ready",
    ("starting", "failed"): "new",
    ("starting", "drain"): "draining",
    ("starting", "stop"): "stopped",
    ("ready", "drain"): "draining",
    ("ready", "stop"): "stopped",
    ("draining", "opened"): "draining",
    ("draining", "failed"): "draining",
    ("draining", "drain"): "draining",
    ("draining", "stop"): "stopped",
    ("stopped", "opened"): "stopped",
    ("stopped", "failed"): "stopped",
    ("stopped", "stop"): "stopped",
}
