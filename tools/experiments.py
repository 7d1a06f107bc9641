"""`./run.sh experiments report`: figures of what was shown and what users did with it, by model and arm."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec

from offline.state import StateDirectory, StateError
from recsys.declaration.reading import default_declaration
from recsys.declaration.types import EventKind
from recsys.exposures.figures import ArtefactFacts, Figures, Key, Tally, compute_figures
from recsys.exposures.urls import open_exposures
from recsys.ranking.artefact import MANIFEST, ArtefactError, read_artefact
from recsys.stores.port import StoreError
from recsys.stores.urls import open_store

_NONE = "-"
_TITLES = ("arm", "model", "exposures", "users", "clicked", "converted", "items", "coverage", "new items", "model age")


def run(*, action: str, window: float, store: str | None, as_json: bool, state_dir: Path) -> int:
    """
    Print the figures.

    Returns:
        0; 1 if the store cannot be read or holds no exposures.
    """
    state = StateDirectory(state_dir)
    try:
        url = store or state.store_url(state.require_current())
        tallies = asyncio.run(_tally(url, window_s=window))
    except (StateError, StoreError) as error:
        print(error, file=sys.stderr)
        return 1
    figures = compute_figures(tallies, lambda version: facts_of(state, version))
    if not figures and not as_json:
        print(f"{action}: the store holds no exposures; run ./run.sh up --exposures and ask it", file=sys.stderr)
        return 1
    print(msgspec.json.encode(figures).decode() if as_json else "\n".join(lines(figures)))
    return 0


async def _tally(url: str, *, window_s: float) -> dict[Key, Tally]:
    password = os.environ.get("FEATURE_STORE_PASSWORD")
    async with aclosing(open_store(url, password=password)) as store:
        declared = await store.declaration() or default_declaration()
    clicks, purchases = kinds_of(declared.events)
    tallies: dict[Key, Tally] = {}
    async with aclosing(open_exposures(url, password=password)) as log:
        async for each in log.scan(window_s=window_s):
            key = (each.model, each.version, each.experiment, each.arm)
            tally = tallies.setdefault(key, Tally(clicks=clicks, purchases=purchases))
            tally.add(each)
    return tallies


def kinds_of(declared: Mapping[str, EventKind]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the declared kinds that count as clicks, and those that count as purchases."""
    clicks = frozenset(name for name, kind in declared.items() if kind.weight > 0)
    return clicks, frozenset(name for name, kind in declared.items() if kind.counter == "purchases")


def facts_of(state: StateDirectory, version: str | None) -> ArtefactFacts | None:
    """Return the facts of the artefact with *version*; None if the state directory does not hold it."""
    folder = next((state.folder / "models").glob(f"*-{version}"), None) if version else None
    if folder is None:
        return None
    try:
        artefact = read_artefact(folder)
    except ArtefactError:
        # An earlier release wrote it.
        return None
    popularity = artefact.arrays["item_popularity"]
    learned = frozenset(item.item_id for item, share in zip(artefact.items, popularity, strict=True) if share > 0)
    written_s = (folder / MANIFEST).stat().st_mtime
    return ArtefactFacts(len(artefact.items), learned, round(written_s * 1e6))


def lines(figures: Sequence[Figures]) -> list[str]:
    """Return the figures as the lines of a table."""
    rows = [_TITLES, *map(_row, figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(each: Figures) -> Sequence[str]:
    return (
        f"{each.experiment}/{each.arm}" if each.experiment else _NONE,
        f"{each.model} {each.version}" if each.version else each.model,
        str(each.exposures),
        str(each.users),
        f"{each.click_through:.2%}",
        f"{each.conversion:.2%}",
        str(each.items),
        _NONE if each.coverage is None else f"{each.coverage:.1%}",
        _NONE if each.new_items is None else f"{each.new_items:.1%}",
        _NONE if each.staleness_s is None else f"{each.staleness_s / 3600:.1f} h",
    )
