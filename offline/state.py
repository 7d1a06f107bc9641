"""
The state directory of a local pipeline: feature stores, models, and which of them are current.

    current.json            {"store": "stores/1-demo.db", "model": "models/1-3f2a…", "dataset": "demo"}
    stores/N-NAME.db        one per import
    models/N-VERSION/       one per training

`current.json` is exchanged in one step, so a reader finds the old pair or the new one, never a mixture. What a
running pipeline has open stays where it is; the next start takes the new pair.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from recsys.ranking.artefact import ArtefactError, read_artefact


class StateError(Exception):
    """The state directory cannot be used."""


class Current(Struct, frozen=True):
    """What the next start serves; paths are relative to the state directory."""

    store: str
    model: str
    dataset: str


class StateDirectory:
    """
    One state directory, made where it does not exist.

    Raises:
        StateError: it cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        try:
            for part in ("stores", "models"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(f"{self.folder} cannot be used: {error.strerror}") from error

    def current(self) -> Current | None:
        """
        Return what is current, or None before the first training.

        Raises:
            StateError: the pointer is there and unreadable.
        """
        path = self.folder / "current.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Current)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise StateError(f"{path} cannot be read: {error}; delete it to start from the demo data") from error

    def advance(self, current: Current) -> None:
        """Make *current* what the next start serves."""
        path = self.folder / "current.json"
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_bytes(msgspec.json.encode(current))
        draft.replace(path)

    def store_url(self, current: Current) -> str:
        """Return the URL of the current store."""
        return f"sqlite:///{self.folder / current.store}"

    def model_path(self, current: Current) -> Path:
        """Return the folder of the current model."""
        return self.folder / current.model

    def new_path(self, part: str, name: str) -> str:
        """Return a path for another store or model, relative to the directory and not in use."""
        numbers = [
            int(each.name.partition("-")[0]) for each in (self.folder / part).iterdir() if each.name[0].isdigit()
        ]
        return f"{part}/{max(numbers, default=0) + 1}-{name}"


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m offline.state`: verify what is current and print the environment that makes functions serve it."""
    parser = argparse.ArgumentParser(prog="offline.state", description=main.__doc__)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--fused", action="store_true", help="for the one Service that holds all functions")
    options = parser.parse_args(arguments)
    try:
        state = StateDirectory(options.state_dir)
        current = state.current()
        if current is None:
            raise StateError(f"nothing was trained in {state.folder} yet")
        read_artefact(state.model_path(current))
    except (StateError, ArtefactError) as error:
        print(error, file=sys.stderr)
        return 1
    services = ["recommend"] * 3 if options.fused else ["extract-features", "rank-items", "recommend"]
    settings = [
        f"FEATURE_STORE_URL={state.store_url(current)}",
        f"MODEL_PATH={state.model_path(current)}",
        f"POPULAR_LIST_PATH={state.folder / 'popular.json'}",
    ]
    print(*(f"{service}:{setting}" for service, setting in zip(services, settings, strict=True)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
