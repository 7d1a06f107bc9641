"""
Everything localkn refuses or fails at, as one tree.

    LocalknError
    ├── ManifestError    YAML, kustomization or command file that cannot be run; all faults at once
    ├── PlatformError    the state directory, the port or Envoy stand in the way of running
    ├── NotReadyError    a Service did not become ready; carries the tail of its log
    └── RefusedError     a verb asked of a running platform that it will not carry out
"""

from collections.abc import Sequence


class LocalknError(Exception):
    """Base of all; its text is one sentence or one line per fault, meant for the terminal."""


class ManifestError(LocalknError):
    """What is wrong with the files given: every fault names its file and the path inside it."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class PlatformError(LocalknError):
    """The platform cannot start or cannot be reached."""


class NotReadyError(LocalknError):
    """A Service is not ready in time."""


class RefusedError(LocalknError):
    """A request the platform understood and declines."""
