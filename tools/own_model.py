"""`./run.sh model`: attach a ranker or an encoder of your own to the current model, or check one."""

import sys
from pathlib import Path

import msgspec

from offline.attachment import AttachError, attach, write_attached
from offline.state import Current, StateDirectory, StateError
from recrank.artefact import Artefact, ArtefactError, read_artefact
from recrank.onnx_model import Provider
from recsys.declaration.reader import DeclarationError, read_declaration
from tools.conformance import Conformance, check_conformance

_DRAFT = "model"


def model(*, action: str, path: Path | None, provider: Provider, as_json: bool, state_dir: Path) -> int:
    """Do what *action* says; return the exit status."""
    state = StateDirectory(state_dir)
    try:
        if action == "check":
            return _show(check_conformance(_read(state, path), provider=provider), as_json=as_json)
        return _attach(state, path or Path())
    except (ArtefactError, AttachError, DeclarationError, StateError) as error:
        print(error, file=sys.stderr)
        return 1


def _read(state: StateDirectory, path: Path | None) -> Artefact:
    """Return the artefact in the folder *path*, the current one, or that with the models of the declaration *path*."""
    if path and path.is_dir():
        return read_artefact(path)
    artefact = read_artefact(state.model_path(state.require_current()))
    return attach(artefact, read_declaration(path), folder=path.parent) if path else artefact


def _show(found: Conformance, *, as_json: bool) -> int:
    print(msgspec.json.format(msgspec.json.encode(found)).decode() if as_json else "\n".join(found.describe()))
    return 0 if found.conforms else 1


def _attach(state: StateDirectory, path: Path) -> int:
    """Check the declared models as `check` does, and make the current model with them current."""
    with state.locked():
        current = state.require_current()
        found = check_conformance(attached := _read(state, path))
        if not found.conforms:
            print("\n".join(found.describe()), file=sys.stderr)
            return 1
        manifest = write_attached(attached, state.draft(_DRAFT))
        published = state.publish(state.draft(_DRAFT), "models", manifest.version)
        state.advance(Current(current.store, published, current.dataset))
    print(
        f"{manifest.name} {manifest.version}: {path} attached to {attached.manifest.version}; the next start serves it"
    )
    print(f"serve it now: {state.serving_command(published)}")
    return 0
