"""
Let a model that was trained elsewhere serve, if it passes the rules and the gate.

The model is compared with the serving one on what users did after both were trained.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from offline.content import StoreContent
from offline.dominance import without_dominant
from offline.evaluation.contenders import load_model
from offline.gate import split_at
from offline.retraining import Deploy, RetrainingError, RetrainingRules, admit, compare, require_users, serve_draft
from offline.state import StateDirectory
from recrank.artefact import ARRAYS, ENCODER, ITEMS, MANIFEST, RANKER, read_artefact

_FILES = (MANIFEST, ARRAYS, ITEMS, RANKER, ENCODER)


def offer(
    state: StateDirectory,
    content: StoreContent,
    model: Path,
    *,
    deploy: Deploy,
    rules: RetrainingRules,
    say: Callable[[str], None],
) -> Path:
    """
    Deploy the artefact in the folder *model* and make it current, if it may take the place of the current model.

    The caller must not hold the lock of *state*.

    Args:
        state: Holds the current model and gets a copy of the offered one.
        content: The data to compare on.
        model: Folder of the offered artefact.
        deploy: Lets the functions serve the model.
        rules: The quality that the model has to reach.
        say: Gets a line for each thing that happens.

    Returns:
        The folder of the copy.

    Raises:
        RetrainingError: the model may not serve, or could not be deployed.
        ArtefactError, StateError: an artefact or the state directory cannot be used.

    Cost: a ranking for each user and model.
    """
    with state.locked():
        path = state.model_path(state.require_current())
        serving, manifest = read_artefact(path), read_artefact(model).manifest
        if manifest.version == serving.manifest.version:
            raise RetrainingError(f"the new model may not serve: it is {manifest.version}, which serves already")
        draft = state.draft("model")
        _copy(model, draft)
        candidate = admit(draft, serving=serving, content=content)
        records, _ = without_dominant(content.records)
        until_us = max(each.training.get("until_us", 0) for each in (manifest, serving.manifest))
        _, task = split_at(records, until_us)
        require_users(task)
        compare(candidate, load_model(path), task, margin=rules.margin, say=say)
        return serve_draft(state, manifest, deploy=deploy, rules=rules, say=say)


def _copy(model: Path, folder: Path) -> None:
    folder.mkdir()
    for name in _FILES:
        if (model / name).exists():
            shutil.copyfile(model / name, folder / name)
