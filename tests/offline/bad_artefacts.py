"""Twenty artefacts that may not serve: five kinds of fault, each in four variants."""

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from offline.training import train
from recrank.artefact import ARRAYS, ITEMS, MANIFEST, read_artefact, write_artefact
from recsys.declaration.reader import default_declaration
from recsys.declaration.types import Attribute, ContextField, EventKind, Items, Users
from recsys.items import Item
from recsys.records import HistoryItem, UserRecord
from tests.offline.tastes import relabelled


@dataclass(frozen=True)
class Around:
    """
    The material of bad artefacts.

    Attributes:
        serving: Folder of the serving artefact.
        good: Folder of an artefact that may serve.
        records: The data of the good artefact.
        items: Titles and attributes, by item id.
    """

    serving: Path
    good: Path
    records: Sequence[UserRecord]
    items: Mapping[str, Item]

    def train(self, folder: Path, records: Sequence[UserRecord]) -> None:
        train(records, items=self.items, folder=folder, dataset="bad", declaration=default_declaration())

    def rewrite(self, folder: Path, **changes: Any) -> None:
        """Write the good artefact with *changes*, and with hashes and a version that belong to it."""
        good = read_artefact(self.good)
        manifest = good.manifest
        content = {
            "name": manifest.name,
            "arrays": good.arrays,
            "items": good.items,
            "training": manifest.training,
            "metrics": manifest.metrics,
            "declaration": good.declaration,
        }
        write_artefact(folder, **{**content, **changes})

    def cut(self, folder: Path, file: str, keep: float) -> None:
        """Copy the good artefact, and cut a file after a share of its bytes."""
        shutil.copytree(self.good, folder)
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: min(int(len(content) * keep), len(content) - 1)])


Make = Callable[[Around, Path], object]


def with_rows(permute: Callable[[list[Item]], list[Item]]) -> Make:
    """Give the rows of the arrays the items of other rows."""
    return lambda around, folder: around.rewrite(folder, items=permute(read_artefact(around.good).items))


def with_declaration(**changes: Any) -> Make:
    def make(around: Around, folder: Path) -> None:
        around.rewrite(folder, declaration=msgspec.structs.replace(default_declaration(), **changes))

    return make


def with_heavy_user(make_history: Callable[[Sequence[UserRecord]], list[HistoryItem]], *, own: bool = True) -> Make:
    """Train on the records and a user with another history: a new user, or with *own* false the first of the records."""

    def make(around: Around, folder: Path) -> None:
        heavy = UserRecord("heavy", "unknown") if own else around.records[0]
        kept = around.records if own else around.records[1:]
        around.train(folder, [*kept, msgspec.structs.replace(heavy, history=make_history(around.records))])

    return make


def flood(share: float) -> Callable[[Sequence[UserRecord]], list[HistoryItem]]:
    """Return a history of new items that is a *share* of all pairs; their times are those of the other pairs."""

    def make(records: Sequence[UserRecord]) -> list[HistoryItem]:
        times = sorted((item.time_us for record in records for item in record.history), reverse=True)
        size = int(len(times) * share / (1 - share))
        return [HistoryItem(f"flood-{n}", 1.0, times[n % len(times)]) for n in range(size)]

    return make


def heavy_weights(weight: float, *, most: int | None = None) -> Callable[[Sequence[UserRecord]], list[HistoryItem]]:
    """Return a history of the *most* first items of the catalogue, each with *weight*."""

    def make(records: Sequence[UserRecord]) -> list[HistoryItem]:
        newest_us = max(item.time_us for record in records for item in record.history)
        catalogue = sorted({item.item_id for record in records for item in record.history})
        return [HistoryItem(item_id, weight, newest_us) for item_id in catalogue[:most]]

    return make


def _former_schema(around: Around, folder: Path) -> None:
    shutil.copytree(around.good, folder)
    manifest = msgspec.json.decode((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest | {"schema_version": 3}))


def _until(around: Around, share: float) -> list[UserRecord]:
    """Return the records up to a time, which has a *share* of the pairs before it."""
    times = sorted(item.time_us for record in around.records for item in record.history)
    date = times[int(len(times) * share)]
    return [
        msgspec.structs.replace(record, history=[item for item in record.history if item.time_us < date])
        for record in around.records
    ]


def _newest_users(records: Sequence[UserRecord], share: float) -> list[UserRecord]:
    """Return the users who acted last."""
    newest_first = sorted(records, key=lambda record: -record.history[0].time_us)
    return newest_first[: int(len(records) * share)]


_EVENTS: Mapping[str, EventKind] = default_declaration().events
_REFUSED = "the new model may not serve: "
_SHUFFLED = f"{_REFUSED}it finds "
_DECLARED = f"{_REFUSED}it has another declaration: "
_HEAVY = rf"{_REFUSED}one user has \d+% of the data"

BAD: Mapping[str, tuple[Make, str]] = {
    "shuffled: every pair": (lambda a, f: a.train(f, relabelled(a.records, seed=1)), _SHUFFLED),
    "shuffled: four fifths of the pairs": (
        lambda a, f: a.train(f, relabelled(a.records, seed=2, share=0.8)),
        _SHUFFLED,
    ),
    # A shift of all rows by one would exchange items that the same users like.
    "shuffled: rows at random": (with_rows(lambda items: random.Random(3).sample(items, len(items))), _SHUFFLED),
    "shuffled: rows dealt to ten piles": (
        with_rows(lambda items: [item for pile in range(10) for item in items[pile::10]]),
        _SHUFFLED,
    ),
    "truncated: half of the arrays": (lambda a, f: a.cut(f, ARRAYS, 0.5), f"{ARRAYS}: its SHA-256"),
    "truncated: last byte of the items": (lambda a, f: a.cut(f, ITEMS, 1.0), f"{ITEMS}: its SHA-256"),
    "truncated: half of the manifest": (lambda a, f: a.cut(f, MANIFEST, 0.5), f"{MANIFEST}: cannot be read"),
    "truncated: a fifth of the users": (
        lambda a, f: a.train(f, _newest_users(a.records, 0.2)),
        rf"{_REFUSED}it was trained on \d+ pairs",
    ),
    "old: data of long ago": (lambda a, f: a.train(f, _until(a, 0.5)), f"{_REFUSED}it is old: its data end at"),
    "old: the model that serves": (lambda a, f: shutil.copytree(a.serving, f), "which serves already"),
    "old: former schema": (_former_schema, "schema version 3; this program reads"),
    "old: no facts of the training": (
        lambda a, f: a.rewrite(f, training={"dataset": "x"}),
        f"{_REFUSED}its manifest does not hold the facts",
    ),
    "declaration: another weight": (
        with_declaration(events={**_EVENTS, "click": EventKind(weight=9.0, counter="clicks")}),
        f"{_DECLARED}events.click.weight",
    ),
    "declaration: another attribute of items": (
        with_declaration(items=Items({"category": Attribute("categorical")})),
        f"{_DECLARED}items.attributes.category",
    ),
    "declaration: another attribute of users": (
        with_declaration(users=Users({"country": Attribute("categorical")})),
        f"{_DECLARED}users.attributes.age_group",
    ),
    "declaration: another value of requests": (
        with_declaration(context={"device": ContextField("categorical")}),
        f"{_DECLARED}context.device",
    ),
    "heavy user: a sixth of the pairs, new items": (with_heavy_user(flood(0.17)), _HEAVY),
    "heavy user: a third of the pairs, a known user": (with_heavy_user(flood(0.34), own=False), _HEAVY),
    "heavy user: large weights on all items": (with_heavy_user(heavy_weights(1e6)), _HEAVY),
    "heavy user: a large weight on one item": (with_heavy_user(heavy_weights(1e9, most=1)), _HEAVY),
}
