"""
`python -m offline.train`: import interactions into a new feature store, train on them, make both current.

Without a file, the demo data. Nothing becomes current before everything has worked.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from offline.collecting import collect_records
from offline.demo import make_demo
from offline.reading.csv_files import read_csv
from offline.reading.lastfm import read_lastfm
from offline.reading.lines import DataError, Source
from offline.reading.movielens import read_movielens
from offline.state import Current, StateDirectory, StateError
from offline.training import train
from recsys.features import compute_features, population_defaults
from recsys.ranking.artefact import Item, Manifest
from recsys.stores.port import UserRecord
from recsys.stores.sqlite import SqliteStore

FORMATS: Mapping[str, Callable[..., Source]] = {
    "csv": read_csv,
    "movielens": read_movielens,
    "lastfm": read_lastfm,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as told; return the exit status."""
    parser = argparse.ArgumentParser(prog="./run.sh train", description=__doc__)
    parser.add_argument("--state-dir", type=Path, default=Path(".recsys"))
    parser.add_argument("--interactions", type=Path, metavar="FILE", help="who did what; the demo data where absent")
    parser.add_argument("--items", type=Path, metavar="FILE", help="titles and categories")
    parser.add_argument("--users", type=Path, metavar="FILE", help="ages")
    parser.add_argument("--format", choices=sorted(FORMATS), default="csv")
    parser.add_argument("--if-missing", action="store_true", help="do nothing where a model is current already")
    options = parser.parse_args(arguments)
    if not options.interactions and (options.items or options.users):
        parser.error("--items and --users go with --interactions")
    try:
        state = StateDirectory(options.state_dir)
        if not (options.if_missing and state.current()):
            _train_into(state, options)
    except (DataError, StateError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _train_into(state: StateDirectory, options: argparse.Namespace) -> None:
    began = time.monotonic()
    records, items, dataset = _load(options)
    store = state.new_path("stores", f"{dataset}.db")
    _fill(state.folder / store, records)
    draft = state.new_path("models", "draft")
    manifest = train(
        records,
        items=items,
        folder=state.folder / draft,
        dataset=dataset,
        progress=lambda epochs: tqdm(epochs, desc="training", unit="epoch", disable=None),
    )
    model = draft.replace("draft", manifest.version)
    (state.folder / draft).rename(state.folder / model)
    state.advance(Current(store, model, dataset))
    _report(manifest, time.monotonic() - began)


def _load(options: argparse.Namespace) -> tuple[list[UserRecord], Mapping[str, Item], str]:
    if not options.interactions:
        demo = make_demo()
        return demo.records, {item.item_id: item for item in demo.items}, "demo"
    source = FORMATS[options.format](options.interactions, items=options.items, users=options.users)
    records = collect_records(source.rows, age_groups=source.age_groups)
    return records, source.items, options.format


def _fill(path: Path, records: Sequence[UserRecord]) -> None:
    async def fill() -> None:
        store = SqliteStore(path)
        population = population_defaults([compute_features(record) for record in records if record.history])
        await store.replace(records, population=population)
        await store.aclose()

    asyncio.run(fill())


def _report(manifest: Manifest, seconds: float) -> None:
    facts = manifest.training
    print(
        f"trained {manifest.name} {manifest.version} on {facts['dataset']} data: {facts['users']} users, "
        f"{facts['items']} items, {facts['ties']} ties, in {seconds:.1f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
