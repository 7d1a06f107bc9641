"""
The errors of manifests, and of changes to them.

    KubeyamlError
    ├── ManifestError    manifests that cannot be used; lists all faults
    └── EditError        a change that kn would refuse
"""

from collections.abc import Sequence


class KubeyamlError(Exception):
    """Base of all; its text is one sentence or one line per fault, meant for the terminal."""


class ManifestError(KubeyamlError):
    """Manifests cannot be used; every fault names its file and the path inside it."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class EditError(KubeyamlError):
    """The change contradicts itself or the Service."""
