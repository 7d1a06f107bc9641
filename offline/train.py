"""
`./run.sh train`: import interactions into a new feature store, train a model on them, and make both current.

Without a file, the demo data is used. With --from-store, the model is trained on the present content of a feature
store, including events. The store and the model become current only after all steps have succeeded.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from offline.choosing import choose
from offline.collecting import collect, collect_records
from offline.evaluation.holdout import HOLDOUTS, split_rows
from offline.interactions import Interactions
from offline.loading import add_data_options, check_data_options, load_data
from offline.reading.lines import DataError
from offline.searching import search
from offline.state import Current, StateDirectory, StateError
from offline.sufficiency import find_shortages
from offline.training import train
from recsys.features import compute_features, population_defaults
from recsys.ranking.artefact import ArtefactError, Item, Manifest, read_artefact
from recsys.ranking.memory import estimate_mib
from recsys.records import UserRecord
from recsys.stores.port import StoreError, StoreUnavailableError
from recsys.stores.sqlite import SqliteStore
from recsys.stores.urls import open_store

_CURRENT = "current"
_MODEL_DRAFT = "model"
_INTERRUPTED = 130
_DEFAULT_STATE = Path(".recsys")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the training that *arguments* describe; return the exit status."""
    options = _parse(arguments)
    state = StateDirectory(options.state_dir)
    try:
        if options.from_store:
            _train_from_store(state, options)
        elif not (options.if_missing and state.current()):
            _train_on_data(state, options)
    except (DataError, StateError, StoreError, ArtefactError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{state.folder}: interrupted; what was current stays current", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run.sh train", description=__doc__)
    parser.add_argument("--state-dir", type=Path, default=_DEFAULT_STATE)
    add_data_options(parser)
    parser.add_argument(
        "--holdout", choices=HOLDOUTS, help="import and train on four fifths, for ./run.sh evaluate --via"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of a random hold-out")
    parser.add_argument("--search", action="store_true", help="search hyper-parameters first")
    parser.add_argument(
        "--from-store",
        nargs="?",
        const=_CURRENT,
        metavar="URL",
        help="train on a feature store; the current one without URL",
    )
    parser.add_argument("--if-missing", action="store_true", help="do nothing if there is a current model")
    options = parser.parse_args(arguments)
    check_data_options(parser, options)
    if options.from_store and (options.interactions or options.holdout or options.if_missing):
        parser.error("--from-store trains on a store: no --interactions, --holdout or --if-missing")
    return options


@dataclass(frozen=True)
class _Material:
    """The data to train on, and the facts about it for the manifest."""

    records: Sequence[UserRecord]
    items: Mapping[str, Item]
    dataset: str
    facts: dict[str, Any] = field(default_factory=dict)


def _train_on_data(state: StateDirectory, options: argparse.Namespace) -> None:
    began = time.monotonic()
    material = _load(options)
    with state.locked():
        # Another training may have made a model while this one waited for the lock.
        if options.if_missing and state.current():
            return
        draft = state.draft("store.db")
        _fill(draft, material.records)
        manifest = _train_into(state, material, options)
        store = state.publish(draft, "stores", f"{material.dataset}.db")
        state.advance(Current(store, _publish(state, manifest), material.dataset))
    _report(manifest, time.monotonic() - began)
    _warn_of_shortages(material.records)


def _train_from_store(state: StateDirectory, options: argparse.Namespace) -> None:
    """Train on a store. If it is the current store, the model becomes current too."""
    began = time.monotonic()
    # This check precedes the lock, because locking would create the state directory.
    state.require_current()
    with state.locked():
        manifest, model, records = _train_on_store(state, options)
    _report(manifest, time.monotonic() - began)
    _warn_of_shortages(records)
    place = "" if options.state_dir == _DEFAULT_STATE else f" --state-dir {options.state_dir}"
    print(f"serve it: ./run.sh kn service update rank-items --env MODEL_PATH={state.folder / model}{place}")


def _train_on_store(state: StateDirectory, options: argparse.Namespace) -> tuple[Manifest, str, Sequence[UserRecord]]:
    current = state.require_current()
    own = options.from_store == _CURRENT
    url = state.store_url(current) if own else options.from_store
    records = asyncio.run(_scan(url))
    if not any(record.history for record in records):
        raise DataError("the feature store holds no interactions")
    # Only the current model contains the titles.
    items = {item.item_id: item for item in read_artefact(state.model_path(current)).items}
    material = _Material(records, items, f"{current.dataset}-store" if own else "store")
    manifest = _train_into(state, material, options)
    model = _publish(state, manifest)
    if own:
        state.advance(Current(current.store, model, current.dataset))
    return manifest, model, records


async def _scan(url: str) -> list[UserRecord]:
    async with aclosing(open_store(url, password=os.environ.get("FEATURE_STORE_PASSWORD"))) as store:
        with tqdm(desc="reading the store", unit="user", disable=None) as bar:
            return [record async for record in store.scan() if bar.update() or True]


def _load(options: argparse.Namespace) -> _Material:
    data = load_data(options)
    facts: dict[str, Any] = {"min_weight": options.min_weight} if options.min_weight else {}
    if options.holdout:
        split = split_rows(Interactions.of(data.source.rows), holdout=options.holdout, seed=options.seed)
        records = collect(split.training, age_groups=data.source.age_groups)
        facts |= {"holdout": options.holdout, "holdout_seed": options.seed}
    else:
        records = data.records or collect_records(data.source.rows, age_groups=data.source.age_groups)
    return _Material(records, data.source.items, data.name, facts)


def _train_into(state: StateDirectory, material: _Material, options: argparse.Namespace) -> Manifest:
    """Choose the sources and their weights, then train and write the draft of a model."""
    searched = search(material.records) if options.search else None
    chosen = choose(
        material.records,
        als=searched.settings.als if searched else None,
        ahead=options.holdout != "random",
    )
    for line in chosen.describe():
        print(line)
    folder = state.draft(_MODEL_DRAFT)
    manifest = train(
        material.records,
        items=material.items,
        folder=folder,
        dataset=material.dataset,
        settings=chosen.settings,
        facts={**material.facts, "choice": chosen.facts(), **({"search": searched.facts()} if searched else {})},
        metrics=searched.metrics() if searched else None,
        progress=lambda epochs: tqdm(epochs, desc="training", unit="epoch", disable=None),
    )
    print(f"an instance of rank_items needs about {estimate_mib(folder)} MiB of memory for this model")
    return manifest


def _publish(state: StateDirectory, manifest: Manifest) -> str:
    return state.publish(state.draft(_MODEL_DRAFT), "models", manifest.version)


def _fill(path: Path, records: Sequence[UserRecord]) -> None:
    async def fill() -> None:
        async with aclosing(SqliteStore(path, create=True)) as store:
            population = population_defaults([compute_features(record) for record in records if record.history])
            await store.replace(records, population=population)

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


def _warn_of_shortages(records: Sequence[UserRecord]) -> None:
    for shortage in find_shortages(records):
        print(f"warning: too little to learn from: {shortage}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
