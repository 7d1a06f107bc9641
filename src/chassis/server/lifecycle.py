"""
The states of a service, and the transitions between them.

    new --start--> starting --opened--> ready --drain--> draining --stop--> stopped

Two rules extend this line: a start that failed leaves the service new, so that it can be retried; and a drain or a stop
during a start holds, however the start ends.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class ServiceState(StrEnum):
    """The state of a service."""

    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


class ServiceEvent(StrEnum):
    """An event that may change the state of a service."""

    START = "start"
    OPENED = "opened"
    FAILED = "failed"
    DRAIN = "drain"
    STOP = "stop"


LIFECYCLE: Final[Mapping[tuple[ServiceState, ServiceEvent], ServiceState]] = {
    (ServiceState.NEW, ServiceEvent.START): ServiceState.STARTING,
    (ServiceState.NEW, ServiceEvent.DRAIN): ServiceState.DRAINING,
    (ServiceState.NEW, ServiceEvent.STOP): ServiceState.STOPPED,
    (ServiceState.STARTING, ServiceEvent.OPENED): ServiceState.READY,
    (ServiceState.STARTING, ServiceEvent.FAILED): ServiceState.NEW,
    (ServiceState.STARTING, ServiceEvent.DRAIN): ServiceState.DRAINING,
    (ServiceState.STARTING, ServiceEvent.STOP): ServiceState.STOPPED,
    (ServiceState.READY, ServiceEvent.DRAIN): ServiceState.DRAINING,
    (ServiceState.READY, ServiceEvent.STOP): ServiceState.STOPPED,
    (ServiceState.DRAINING, ServiceEvent.OPENED): ServiceState.DRAINING,
    (ServiceState.DRAINING, ServiceEvent.FAILED): ServiceState.DRAINING,
    (ServiceState.DRAINING, ServiceEvent.DRAIN): ServiceState.DRAINING,
    (ServiceState.DRAINING, ServiceEvent.STOP): ServiceState.STOPPED,
    (ServiceState.STOPPED, ServiceEvent.OPENED): ServiceState.STOPPED,
    (ServiceState.STOPPED, ServiceEvent.FAILED): ServiceState.STOPPED,
    (ServiceState.STOPPED, ServiceEvent.STOP): ServiceState.STOPPED,
}
