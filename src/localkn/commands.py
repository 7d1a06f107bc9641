"""The local command of each container image. The manifests name only the image."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kubeyaml.documents import read_documents
from kubeyaml.errors import ManifestError
from kubeyaml.fields import field_faults

_SHAPE: Final = {
    "root": "text",
    "images": {".other": {".needs": ["command"], "command": ["scalar"], "env": {".other": "scalar"}}},
}


@dataclass(frozen=True, slots=True)
class Command:
    """Words, working directory and the environment that the image would set."""

    argv: Sequence[str]
    directory: Path
    env: Mapping[str, str] = field(default_factory=dict)


class Commands:
    """The commands of a mapping file (`root`, and `command` and `env` of each image), and *built_in* ones."""

    def __init__(self, path: Path, *, built_in: Mapping[str, Command] | None = None) -> None:
        """
        Read the file.

        Raises:
            ManifestError: The file cannot be read, or an entry is not a command.
        """
        content: Any = next(iter(read_documents(path)), {})
        if found := list(field_faults(content, _SHAPE)):
            raise ManifestError([f"{path}: {place or 'the file'}: {message}" for place, message in found])
        root = path.parent / content["root"] if content.get("root") else Path.cwd()
        self._path = path
        self._commands = dict(built_in or {})
        for image, entry in (content.get("images") or {}).items():
            words, env = [str(word) for word in entry["command"]], entry.get("env") or {}
            if words[0] == "python":
                words[0] = sys.executable
            self._commands[image] = Command(words, root.resolve(), {k: str(v) for k, v in env.items()})

    def find(self, image: str) -> Command:
        """
        Look *image* up as written, then without tag and digest, then by the last part of its name.

        Raises:
            ManifestError: No entry matches.
        """
        bare = re.sub(r"(:[\w][\w.-]*)?(@.+)?$", "", image)
        for name in (image, bare, bare.rpartition("/")[2]):
            if name in self._commands:
                return self._commands[name]
        known = ", ".join(self._commands) or "none"
        raise ManifestError([f"{self._path}: images: no command for image {image} (the file has: {known})"])
