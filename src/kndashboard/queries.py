"""Ask the platform what no snapshot contains."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from localkn import control
from localkn.errors import LocalknError, RefusedError
from localkn.state import PlatformDirectory

_LETTERS = 50
_WAIT_S = 5.0


class PlatformQueries:
    """
    The platform of a state directory. Its methods block.

    Args:
        state: The state directory.
        reports: Directory of the reports on experiments and rollouts; None for none.
    """

    def __init__(self, state: PlatformDirectory, reports: Path | None = None) -> None:
        self._state, self.reports = state, reports
        self.folder: Path = state.root.absolute()
        self.logs: Path = state.logs

    def services(self) -> Sequence[Mapping[str, Any]]:
        """
        Return the Services as Kubernetes objects.

        Raises:
            LocalknError: No platform runs.
        """
        services: Sequence[Mapping[str, Any]] = self._call("services")
        return services

    def events(self) -> Mapping[str, Any]:
        """
        Return the Triggers and the newest dead letters; none without a Broker.

        Raises:
            LocalknError: No platform runs.
        """
        try:
            figures: Mapping[str, Any] = self._call("events", letters=_LETTERS)
        except RefusedError as error:
            return {"triggers": {}, "dead_letters": [], "problem": str(error)}
        return figures

    def redrive(self, choice: Mapping[str, Any]) -> Mapping[str, Any]:
        """
        Deliver dead letters again; return their number, or why none was.

        Args:
            choice: Trigger, ids and source, as of `localkn redrive`; all dead letters if empty.
        """
        try:
            done: Mapping[str, Any] = self._call("redrive", **choice)
        except LocalknError as error:
            return {"redriven": 0, "problem": str(error)}
        return done

    def _call(self, verb: str, **arguments: Any) -> Any:
        return control.call(self._state.socket("control"), verb, timeout_s=_WAIT_S, **arguments)
