"""`./run.sh declaration`: check a declaration, print the demo's, or print the JSON schema of declarations."""

import sys
from pathlib import Path

import msgspec

from recsys.declaration.reader import DEFAULT, DeclarationError, read_declaration
from recsys.declaration.types import Declaration


def run(*, action: str, file: Path | None) -> int:
    """Do what *action* says; return the exit status."""
    if file:
        return _check(file)
    print(DEFAULT.read_text("utf-8") if action == "show" else schema(), end="")
    return 0


def schema() -> str:
    """Return the JSON schema of declarations, by which editors complete and check them."""
    found = msgspec.json.schema(Declaration)
    return msgspec.json.format(msgspec.json.encode({"title": "recsys.toml", **found})).decode() + "\n"


def _check(path: Path) -> int:
    try:
        declaration = read_declaration(path)
    except DeclarationError as error:
        print(error, file=sys.stderr)
        return 1
    kinds = ", ".join(f"{name} {kind.weight:g}" for name, kind in declaration.events.items())
    attributes = ", ".join(f"{name} ({each.kind})" for name, each in declaration.items.attributes.items())
    print(f"{path}: no faults; events: {kinds}; attributes of items: {attributes or 'none'}")
    return 0
