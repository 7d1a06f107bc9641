"""
Everything localkn refuses or fails at, as one tree; faults of manifests are `kubeyaml.errors`.

    LocalknError
    ├── PlatformError    the state directory, the port or Envoy stand in the way of running
    ├── NotReadyError    a Service did not become ready; carries the tail of its log
    ├── RefusedError     a verb asked of a running platform that it will not carry out
    └── UsageError       the arguments of a verb are wrong, whatever runs or exists
"""


class LocalknError(Exception):
    """Base of all; its text is one sentence or one line per fault, meant for the terminal."""


class PlatformError(LocalknError):
    """The platform cannot start or cannot be reached."""


class NotReadyError(LocalknError):
    """A Service is not ready in time."""


class UsageError(LocalknError):
    """The arguments contradict each other, or are none; exit status 2."""


class RefusedError(LocalknError):
    """A request the platform understood and declines."""
