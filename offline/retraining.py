"""
Retrain on a feature store, and let the new model serve if it passes the gate.

    python -m offline.retraining --state-dir /models --service rank-items
    python -m offline.retraining --state-dir /tmp/models --to s3://BUCKET/PREFIX

1. Read the store that FEATURE_STORE_URL names. Stop if fewer than `--fewest` pairs of user and item are newer than the
   serving model.
2. Train a challenger without the newest half of these pairs, and compare it with the serving model (`gate`).
3. Train on everything with the challenger's settings, read the artefact back, deploy it, and make it current.

A step that fails leaves the serving model as it was. The exit status is then 1, so that a Job counts as failed.
"""

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from offline.admission import find_fault
from offline.attachment import require_blank
from offline.boosting import LearnerError
from offline.catalogue import changed_items
from offline.content import StoreContent, read_store
from offline.delivery import adopt, deliver, parse_target
from offline.dominance import MOST_OF_ONE_USER, without_dominant
from offline.erasures import check_still_wanted, erasure_facts, list_erasures
from offline.evaluation.contenders import load_model, open_alone
from offline.evaluation.quality import Task
from offline.gate import MARGIN, Evidence, GateVerdict, divide, judge
from offline.material import Material, Recipe
from offline.publication import ClusterAccess, PublishError, serve
from offline.state import Current, StateDirectory, StateError
from offline.sufficiency import find_shortages
from recrank.artefact import Artefact, ArtefactError, Manifest, read_artefact
from recrank.model import RankingModel
from recrank.places import BucketPlace, PlaceError
from recstore.erasures import Erasure, digest_user
from recstore.port import StoreError, StoreMissingError

FEWEST = 1000
_KEPT_MODELS = 10
_EVIDENCE_USERS = 50

Deploy = Callable[[Path], None]
"""Lets the functions serve a model; raises RetrainingError if they do not."""


class RetrainingError(Exception):
    """The new model does not serve; the message says why."""


@dataclass(frozen=True)
class RetrainingRules:
    """
    When to retrain, and what the new model has to reach.

    Attributes:
        fewest: Least number of pairs of user and item that are newer than the serving model.
        margin: Share of the serving model's NDCG@10 that the new model may lose.
        kept: Number of models that stay in the state directory.
    """

    fewest: int = FEWEST
    margin: float = MARGIN
    kept: int = _KEPT_MODELS


def retrain(
    state: StateDirectory,
    content: StoreContent,
    *,
    deploy: Deploy,
    rules: RetrainingRules,
    say: Callable[[str], None],
    erasures: Callable[[], Sequence[Erasure]] = tuple,
) -> Path | None:
    """
    Train on *content*, compare with the current model of *state*, deploy the new one and make it current.

    Without a current model, the new one is deployed without a comparison. The caller must not hold the lock of *state*.

    Args:
        state: Holds the current model and gets the new one.
        content: The data to train on.
        deploy: Lets the functions serve the new model.
        rules: When to retrain, and what the new model has to reach.
        say: Gets a line for each thing that happens.
        erasures: Returns the erasures of the feature store, which may rise during the training.

    Returns:
        The folder of the new model; None if there is too little new to learn from.

    Raises:
        RetrainingError: the new model may not serve, or could not be deployed.
        ArtefactError, StateError: the current model or the state directory cannot be used, or a user of *content* was
            erased since.

    Cost: two trainings; their memory is that of one.
    """
    with state.locked():
        current = state.current()
        serving = read_artefact(state.model_path(current)) if current else None
        if serving:
            require_blank(serving)
        material = _collect(content, serving, say=say)
        records = material.records
        recipe: Recipe | None = None
        if current and serving:
            evidence = divide(records, after_us=serving.manifest.training.get("until_us", 0))
            if evidence.fresh < rules.fewest:
                say(f"{evidence.fresh} new pairs of user and item; waiting for {rules.fewest}")
                return None
            path = state.model_path(current)
            recipe, compared = _challenge(state, material, path, evidence, margin=rules.margin, say=say)
            material = replace(material, facts={**material.facts, **compared})
        manifest = material.train(recipe or material.choose(), state.draft("model"))
        # The functions refuse a damaged artefact too, but only after the update has begun.
        admit(state.draft("model"), serving=serving, content=content)
        check_still_wanted(records, erasures())
        return serve_draft(state, manifest, deploy=deploy, rules=rules, say=say)


def _collect(content: StoreContent, serving: Artefact | None, *, say: Callable[[str], None]) -> Material:
    """
    Return what to train on: the users of *content* without dominant ones, and the items of *serving* with their changes.

    Raises:
        RetrainingError: there is too little to learn from.
    """
    if shortages := find_shortages(content.records):
        raise RetrainingError(f"too little to learn from: {'; '.join(shortages)}")
    records, dominant = without_dominant(content.records)
    for each in dominant:
        # No id, because logs keep this line after an erasure.
        digest = digest_user(each.user_id)
        say(f"left out a user with more than {MOST_OF_ONE_USER:.0%} of the data; SHA-256 of the id: {digest}")
    items = changed_items({item.item_id: item for item in serving.items} if serving else {}, content.entries)
    return Material(records, items, "store", content.declaration, erasure_facts(content.erasures))


def admit(folder: Path, *, serving: Artefact | None, content: StoreContent) -> RankingModel:
    """
    Return the model of the artefact in *folder*, which no rule keeps from serving.

    Raises:
        ArtefactError: the artefact is damaged.
        RetrainingError: a rule is against it.
    """
    artefact = read_artefact(folder)
    fault = find_fault(
        artefact,
        serving=serving.manifest if serving else None,
        declaration=content.declaration,
        erasures=content.erasures,
    )
    if fault:
        raise RetrainingError(f"the new model may not serve: {fault}")
    return open_alone(artefact)


def serve_draft(
    state: StateDirectory, manifest: Manifest, *, deploy: Deploy, rules: RetrainingRules, say: Callable[[str], None]
) -> Path:
    """Deploy the draft of a model and make it current; return its folder. The caller must hold the lock."""
    current = state.current()
    model = state.publish(state.draft("model"), "models", manifest.version)
    deploy(state.folder / model)
    state.advance(Current(current.store if current else "", model, current.dataset if current else "store"))
    _prune(state.folder / "models", kept=rules.kept)
    say(f"model {manifest.version} serves, trained on {manifest.training['ties']} pairs of user and item")
    return state.folder / model


def _challenge(
    state: StateDirectory,
    material: Material,
    serving: Path,
    evidence: Evidence,
    *,
    margin: float,
    say: Callable[[str], None],
) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe of a challenger that passes the gate, and the figures of the comparison."""
    require_users(evidence.task)
    known = replace(material, records=evidence.known)
    recipe, draft = known.choose(), state.draft("challenger")
    known.train(recipe, draft)
    verdict = compare(load_model(draft), load_model(serving), evidence.task, margin=margin, say=say)
    return recipe, {"gate": verdict.facts()}


def require_users(task: Task) -> None:
    """
    Check that enough users have new items to compare models on.

    Raises:
        RetrainingError: too few users have some.
    """
    if (users := task.users.size) < _EVIDENCE_USERS:
        raise RetrainingError(f"{users} users have new items to compare the models on; {_EVIDENCE_USERS} are needed")


def compare(
    challenger: RankingModel, serving: RankingModel, task: Task, *, margin: float, say: Callable[[str], None]
) -> GateVerdict:
    """
    Compare two models on *task*, and say the figures.

    Raises:
        RetrainingError: the challenger may not serve.
    """
    verdict = judge(challenger, serving, task, margin=margin)
    say(verdict.describe())
    if verdict.fault:
        raise RetrainingError(f"the new model may not serve: {verdict.fault}")
    return verdict


def _prune(models: Path, *, kept: int) -> None:
    """Delete the oldest models; the number before the first dash of a name rises with each training."""
    numbered = {path: path.name.partition("-")[0] for path in models.iterdir()}
    oldest_first = sorted(
        (path for path, text in numbered.items() if text.isdecimal()), key=lambda path: int(numbered[path])
    )
    for folder in oldest_first[:-kept]:
        shutil.rmtree(folder)


def main(arguments: Sequence[str] | None = None, *, env: Mapping[str, str] = os.environ) -> int:
    """Retrain once; return 0 if the new model serves or there is too little new data, else 1."""
    parser = argparse.ArgumentParser(prog="offline.retraining", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True, metavar="DIR", help="folder of the models")
    parser.add_argument("--service", metavar="NAME", help="Knative Service whose MODEL_PATH is set to the new model")
    parser.add_argument("--to", metavar="s3://BUCKET/PREFIX", help="object store that gets the new model")
    parser.add_argument("--fewest", type=int, default=FEWEST, metavar="N", help="least number of new pairs")
    parser.add_argument("--margin", type=float, default=MARGIN, metavar="0..1", help="share of NDCG@10 it may lose")
    options = parser.parse_args(arguments)
    if options.to and options.service:
        parser.error("--to and --service exclude each other: instances follow the place by themselves")
    try:
        url = env.get("FEATURE_STORE_URL", "")
        if not url:
            raise StoreMissingError("FEATURE_STORE_URL is not set; name the store to train on")
        password = env.get("FEATURE_STORE_PASSWORD")
        state = StateDirectory(options.state_dir)
        place = parse_target(options.to) if options.to else None
        if place:
            adopt(state, place)
        retrain(
            state,
            asyncio.run(read_store(url, password=password)),
            deploy=_publish_to(place) if place else _deploy(options.service),
            rules=RetrainingRules(fewest=options.fewest, margin=options.margin),
            say=_say,
            erasures=lambda: asyncio.run(list_erasures(url, password=password)),
        )
    except (ArtefactError, LearnerError, PlaceError, PublishError, RetrainingError, StateError, StoreError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _publish_to(place: BucketPlace) -> Deploy:
    return lambda model: _say(f"published: {deliver(model, place)}")


def _deploy(service: str | None) -> Deploy:
    """Return a function that lets *service* serve a model, or one that prints how to do it."""
    if service:
        cluster = ClusterAccess.own()
        return lambda model: serve(model, service=service, cluster=cluster)
    return lambda model: _say(f"serve it: kn service update rank-items --env MODEL_PATH={model}")


if __name__ == "__main__":
    sys.exit(main())
