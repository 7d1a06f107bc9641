"""
`./run.sh train`: import interactions into a new feature store, train a model on them, and make both current.

Without a file, the demo data is used. With --from-store, the model is trained on the present content of a feature
store, including events; --refresh keeps the settings of the current model. The store and the model become current only
after all steps have succeeded.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from offline.boosting import LearnerError
from offline.catalogue import carry_over, changed_items, put_entries
from offline.collection import collect, collect_records
from offline.content import read_store
from offline.delivery import deliver
from offline.erasures import (
    ERASED_UNTIL,
    check_still_wanted,
    count_missed,
    erasure_facts,
    list_erasures,
    spread,
    without_erased,
)
from offline.evaluation.holdout import Holdout, split_rows
from offline.inputs import DataOptions, load_data, load_items
from offline.interactions import Interactions
from offline.material import Material
from offline.reading.lines import DataError
from offline.state import CURRENT, DEFAULT, Current, StateDirectory, StateError
from offline.sufficiency import find_shortages
from offline.training import LEFT_OUT
from recrank.artefact import ArtefactError, Manifest, read_artefact
from recrank.memory import estimate_mib
from recrank.places import BucketPlace, PlaceError
from recstore.catalogue.entries import describe
from recstore.erasures import Erasure
from recstore.port import StoreError, StoreUnavailableError
from recstore.sqlite import SqliteStore
from recsys.declaration.agreement import agree
from recsys.declaration.reader import DeclarationError
from recsys.declaration.types import Declaration
from recsys.features import compute_features, population_defaults
from recsys.records import UserRecord

_MODEL_DRAFT = "model"
_INTERRUPTED = 130


@dataclass(frozen=True)
class TrainingPlan:
    """
    The data and the options of a training.

    Attributes:
        data: The files to import; with *from_store*, the items to add.
        from_store: URL of a feature store to train on instead, or `CURRENT`; None imports the files.
        holdout: Import and train on four fifths only, for `./run.sh evaluate --via`.
        seed: Seed of a random hold-out.
        search: Search hyper-parameters first.
        refresh: With *from_store*, keep the settings of the current model.
        if_missing: Do nothing if there is a current model.
        state_dir: Directory of the stores and models.
        to: Place in an object store to publish the model to; None publishes nothing.
    """

    data: DataOptions = field(default_factory=DataOptions)
    from_store: str | None = None
    holdout: Holdout | None = None
    seed: int = 0
    search: bool = False
    refresh: bool = False
    if_missing: bool = False
    state_dir: Path = DEFAULT
    to: BucketPlace | None = None


def run(plan: TrainingPlan) -> int:
    """Train as *plan* says; return the exit status."""
    state = StateDirectory(plan.state_dir)
    try:
        if plan.from_store:
            _train_from_store(state, plan, plan.from_store)
        elif not (plan.if_missing and state.current()):
            _train_on_data(state, plan)
    except (DataError, StateError, StoreError, ArtefactError, DeclarationError, LearnerError, PlaceError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{state.folder}: interrupted; what was current stays current", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _train_on_data(state: StateDirectory, plan: TrainingPlan) -> None:
    began = time.monotonic()
    material = _load(plan)
    with state.locked():
        # Another training may have made a model while this one waited for the lock.
        if plan.if_missing and state.current():
            return
        erasures = spread(state)
        material = replace(
            material,
            records=without_erased(material.records, erasures),
            facts={**material.facts, **erasure_facts(erasures)},
        )
        draft = state.draft("store.db")
        _fill(draft, material, erasures)
        manifest = _train_into(state, material, plan)
        check_still_wanted(material.records, spread(state))
        carry_over(state.stores(), draft, imported=material.items if plan.data.items else ())
        store = state.publish(draft, "stores", f"{material.dataset}.db")
        # The new store takes over erasures that reached an earlier store since.
        spread(state)
        current = Current(store, _publish(state, manifest), material.dataset)
        state.advance(current)
    _report(manifest, time.monotonic() - began)
    _deliver(state.model_path(current), plan)
    _warn_of_own_models(material.declaration)
    _warn_of_shortages(material.records)


def _train_from_store(state: StateDirectory, plan: TrainingPlan, store: str) -> None:
    """Train on a store. If it is the current store, the model becomes current too."""
    began = time.monotonic()
    # This check precedes the lock, because locking would create the state directory.
    state.require_current()
    with state.locked():
        manifest, model, records = _train_on_store(state, plan, store)
    _report(manifest, time.monotonic() - began)
    _deliver(state.folder / model, plan)
    _warn_of_shortages(records)
    print(f"serve it: {state.serving_command(model)}")


def _train_on_store(
    state: StateDirectory, plan: TrainingPlan, store: str
) -> tuple[Manifest, str, Sequence[UserRecord]]:
    current = state.require_current()
    own = store == CURRENT
    url = state.store_url(current) if own else store
    if own:
        spread(state)
    content = asyncio.run(read_store(url, password=os.environ.get("FEATURE_STORE_PASSWORD")))
    records, entries = content.records, content.entries
    declaration = agree(plan.data.declaration, content.declaration, holder="the feature store", giver="--declaration")
    if not any(record.history for record in records):
        raise DataError("the feature store holds no interactions")
    # Only the current model contains the titles and attributes.
    artefact = read_artefact(state.model_path(current))
    _warn_of_own_models(artefact.declaration)
    added = load_items(replace(plan.data, declaration=declaration))
    items = changed_items({item.item_id: item for item in artefact.items}, entries) | added
    dataset = f"{current.dataset}-store" if own else "store"
    material = Material(records, items, dataset, declaration, erasure_facts(content.erasures))
    if plan.refresh:
        _check_refresh(artefact.manifest, content.erasures)
        manifest = material.refresh(artefact, state.draft(_MODEL_DRAFT))
    else:
        manifest = _train_into(state, material, plan)
    check_still_wanted(records, asyncio.run(list_erasures(url, password=os.environ.get("FEATURE_STORE_PASSWORD"))))
    model = _publish(state, manifest)
    if own:
        state.advance(Current(current.store, model, current.dataset))
        # Serving applies the catalogue to the model. The items file is newer than the entries of its items.
        newer = [describe(item, at_us=time.time_ns() // 1000) for item in added.values() if item.item_id in entries]
        asyncio.run(put_entries(url, newer))
    return manifest, model, records


def _check_refresh(manifest: Manifest, erasures: Sequence[Erasure]) -> None:
    """
    Check that no user was erased since the model of *manifest* was trained: a refresh starts from its vectors.

    Raises:
        DataError: users were erased since.
    """
    if newer := count_missed(erasures, known_us=manifest.training.get(ERASED_UNTIL, -1)):
        raise DataError(
            f"users erased since the current model was trained: {newer}; a refresh would start from vectors that "
            "contain them; train without --refresh"
        )


def _load(plan: TrainingPlan) -> Material:
    data = load_data(plan.data)
    users: dict[str, Any] = {"age_groups": data.source.age_groups, "attributes": data.source.attributes}
    facts: dict[str, Any] = {"min_weight": least} if (least := plan.data.least_weight) else {}
    if plan.holdout:
        split = split_rows(Interactions.of(data.source.rows).liked(), holdout=plan.holdout, seed=plan.seed)
        records = collect(split.training, **users)
        facts |= {"holdout": plan.holdout, "holdout_seed": plan.seed}
    else:
        records = data.records or collect_records(data.source.rows, **users)
    return Material(records, data.source.items, data.name, plan.data.declared, facts)


def _train_into(state: StateDirectory, material: Material, plan: TrainingPlan) -> Manifest:
    """Choose the sources and their weights, then train and write the draft of a model."""
    recipe = material.choose(searches=plan.search, ahead=plan.holdout != "random", tell=_tell)
    for line in recipe.lines:
        print(line)
    _tell("training the model")
    folder = state.draft(_MODEL_DRAFT)
    manifest = material.train(recipe, folder)
    print(f"an instance of rank_items needs about {estimate_mib(folder)} MiB of memory for this model")
    return manifest


def _tell(step: str) -> None:
    print(step, file=sys.stderr, flush=True)


def _publish(state: StateDirectory, manifest: Manifest) -> str:
    return state.publish(state.draft(_MODEL_DRAFT), "models", manifest.version)


def _deliver(model: Path, plan: TrainingPlan) -> None:
    if plan.to is None:
        return
    try:
        published = deliver(model, plan.to)
    except PlaceError as error:
        raise PlaceError(f"{model} is trained, but not published: {error}; train again with --to") from error
    print(f"published: MODEL_PATH={plan.to} follows it, MODEL_PATH={published} stays with this version")


def _fill(path: Path, material: Material, erasures: Sequence[Erasure]) -> None:
    records = material.records

    async def fill() -> None:
        async with aclosing(SqliteStore(path, create=True)) as store:
            population = population_defaults([compute_features(record) for record in records if record.history])
            await store.adopt(erasures)
            await store.replace(records, population=population, declaration=material.declaration)

    asyncio.run(fill())
    # Closing merges SQLite's log into the file. If that fails, the log stays and the file alone is incomplete.
    if path.with_name(f"{path.name}-wal").exists():
        raise StoreUnavailableError(f"{path}: cannot be written whole; free some disk space")


def _report(manifest: Manifest, seconds: float) -> None:
    facts = manifest.training
    held_out = f" without a {facts['holdout']} fifth" if "holdout" in facts else ""
    print(
        f"trained {manifest.name} {manifest.version} on {facts['dataset']} data{held_out}: {facts['users']} users, "
        f"{facts['items']} items, {facts['ties']} ties, in {seconds:.1f} s"
    )
    if left_out := facts.get(LEFT_OUT):
        print(
            f"warning: items that are not in the model: {left_out}; they have no interactions, and share no value of an "
            "attribute with two items that have some",
            file=sys.stderr,
        )


def _warn_of_own_models(declaration: Declaration) -> None:
    if declaration.ranker or declaration.encoder:
        print("the new model does not hold the declared ranker or encoder; run ./run.sh model attach", file=sys.stderr)


def _warn_of_shortages(records: Sequence[UserRecord]) -> None:
    for shortage in find_shortages(records):
        print(f"warning: too little to learn from: {shortage}", file=sys.stderr)
