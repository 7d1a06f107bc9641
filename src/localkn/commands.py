"""Which local command stands for which container image: the one thing the manifests do not say."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubeyaml.errors import ManifestError
from kubeyaml.resources import read_documents


@dataclass(frozen=True, slots=True)
class Command:
    """What to start, where, and what its image would have set in the environment."""

    argv: Sequence[str]
    directory: Path
    env: Mapping[str, str] = field(default_factory=dict)


class Commands:
    """The mapping file: `root`, and under `images` a `command` and an `env` for each image; and *built_in* ones."""

    def __init__(self, path: Path, *, built_in: Mapping[str, Command] | None = None) -> None:
        """
        Read the file.

        Raises:
            ManifestError: It cannot be read, or an entry is no command.
        """
        documents = read_documents(path)
        content: dict[str, Any] = documents[0] if documents and isinstance(documents[0], dict) else {}
        root = path.parent / content["root"] if "root" in content else Path.cwd()
        self._path = path
        self._commands = dict(built_in or {})
        for image, entry in (content.get("images") or {}).items():
            argv, env = (entry or {}).get("command"), (entry or {}).get("env") or {}
            if not isinstance(argv, list) or not argv:
                raise ManifestError([f"{path}: images.{image}.command: must be a list of words"])
            words = [str(word) for word in argv]
            if words[0] == "python":
                words[0] = sys.executable
            self._commands[image] = Command(words, root.resolve(), {k: str(v) for k, v in env.items()})

    def find(self, image: str) -> Command:
        """
        Look *image* up as written, then without tag and digest, then by the last part of its name.

        Raises:
            ManifestError: No entry fits.
        """
        bare = re.sub(r"(:[\w][\w.-]*)?(@.+)?$", "", image)
        for name in (image, bare, bare.rpartition("/")[2]):
            if name in self._commands:
                return self._commands[name]
        known = ", ".join(self._commands) or "none"
        raise ManifestError([f"{self._path}: images: no command for image {image} (there are: {known})"])
