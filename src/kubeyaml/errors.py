"""
What is wrong with manifests, or with a change to one.

    KubeyamlError
    ├── ManifestError    YAML or a kustomization that cannot be used; all faults at once
    └── EditError        a change that kn would refuse
"""

from collections.abc import Sequence


class KubeyamlError(Exception):
    """Base of all; its text is one sentence or one line per fault, meant for the terminal."""


class ManifestError(KubeyamlError):
    """What is wrong with the files given: every fault names its file and the path inside it."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class EditError(KubeyamlError):
    """The change contradicts itself, or what it is applied to."""
