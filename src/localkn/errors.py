"""
The errors of localkn as one tree; faults of manifests are in `kubeyaml.errors`.

    LocalknError
    ├── PlatformError         the platform cannot start or cannot be reached
    ├── ServiceNotReadyError  a Service is not ready in time; the message holds the end of its log
    ├── RefusedError          a running platform declines a request
    └── UsageError            the arguments of a verb are wrong; exit status 2
"""


class LocalknError(Exception):
    """Base of all; the text is one sentence, or one line per fault, for the terminal."""


class PlatformError(LocalknError):
    """The platform cannot start or cannot be reached."""


class ServiceNotReadyError(LocalknError):
    """A Service is not ready in time."""


class UsageError(LocalknError):
    """The arguments of a verb are missing or contradict each other."""


class RefusedError(LocalknError):
    """A running platform declines a request."""
