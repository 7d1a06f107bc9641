"""`./run.sh items import FILE`: change items of the running pipeline."""

import asyncio
import dataclasses
import os
import sys
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from functions.extract_features.item_changes import read_upsert
from offline.catalogue import put_entries
from offline.inputs import DataOptions, load_items
from offline.reading.columns import parse_mapping
from offline.reading.faults import DataError
from offline.state import StateDirectory, StateError
from recrank.artefact import Artefact, ArtefactError, read_artefact
from recrank.changes import known_values
from recstore.catalogue.entries import Entry, describe
from recstore.port import StoreError
from recsys.declaration.types import Attribute, Declaration
from recsys.items import Item
from tools.event_lines import SHOWN, read_event_lines, refuse

_AVAILABLE = "available"
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def items(
    *,
    action: str,  # noqa: ARG001 - there is one
    file: Path,
    format_: str = "csv",
    map_: str | None = None,
    store: str | None = None,
    state_dir: Path,
) -> int:
    """Write the items of *file* into the catalogue of a store; return the exit status."""
    try:
        state = StateDirectory(state_dir)
        current = state.require_current()
        artefact = read_artefact(state.model_path(current))
        data = DataOptions(items=file, format=format_, map=parse_mapping(map_), declaration=artefact.declaration)
        entries = read_entries(data, file, at_us=time.time_ns() // 1000)
        _check_attributes(file, entries, artefact)
        url = store or state.store_url(current)
        changed = asyncio.run(put_entries(url, entries.values(), password=os.environ.get("FEATURE_STORE_PASSWORD")))
    except (ArtefactError, DataError, StateError, StoreError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"items changed: {changed:,}, as they were: {len(entries) - changed:,}")
    if unplaced := _unplaced(entries, artefact):
        shown = ", ".join(unplaced[:SHOWN])
        print(
            f"warning: new items without an attribute value that the model knows, which are recommended "
            f"after the next training only ({len(unplaced):,}): {shown}",
            file=sys.stderr,
        )
    return 0


def read_entries(data: DataOptions, file: Path, *, at_us: int) -> dict[str, Entry]:
    """
    Return the changes in *file*, the items file of *data*, by item: JSON lines if it ends in `.jsonl`.

    Raises:
        DataError: the file cannot be used; the message lists faults with their lines.
    """
    if file.suffix == ".jsonl":
        found = read_event_lines(file, partial(read_upsert, attributes=data.declared.items.attributes))
        return _merged(_at(entry, at_us) for entry in found)
    items = load_items(dataclasses.replace(data, declaration=_with_availability(data.declared))).values()
    refuse([f"{file}: {fault}" for item in items if (fault := _faulty_flag(item))])
    return _merged(_entry(item, at_us) for item in items)


def _with_availability(declaration: Declaration) -> Declaration:
    """Return *declaration* with the column `available`, so that the reader of a table returns it."""
    attributes = {_AVAILABLE: Attribute("categorical"), **declaration.items.attributes}
    return replace(declaration, items=replace(declaration.items, attributes=attributes))


def _merged(entries: Iterable[Entry]) -> dict[str, Entry]:
    merged: dict[str, Entry] = {}
    for entry in entries:
        merged[entry.item_id] = merged.get(entry.item_id, entry).merge(entry)
    return merged


def _at(entry: Entry, at_us: int) -> Entry:
    described_us = at_us if entry.description else entry.described_us
    available_us = at_us if entry.available_us >= 0 else entry.available_us
    return Entry(entry.item_id, entry.description, described_us, entry.available, available_us)


def _faulty_flag(item: Item) -> str | None:
    flag = next(iter(item.attributes.get(_AVAILABLE, ("true",))))
    known = flag.lower() in _FLAGS
    return None if known else f"item {item.item_id}: available must be true or false, not {flag[:40]!r}"


def _entry(item: Item, at_us: int) -> Entry:
    """Return the entry of an item of a table, whose column `available` does not count as an attribute."""
    attributes = {name: values for name, values in item.attributes.items() if name != _AVAILABLE}
    entry = describe(Item(item.item_id, item.title, attributes), at_us=at_us)
    flags = item.attributes.get(_AVAILABLE)
    if not flags:
        return entry
    return entry.merge(Entry(item.item_id, available=_FLAGS[flags[0].lower()], available_us=at_us))


def _check_attributes(file: Path, entries: Mapping[str, Entry], artefact: Artefact) -> None:
    """
    Check that the model knows all attributes.

    Raises:
        DataError: it does not; the message lists them.
    """
    known = {name for item in artefact.items for name in item.attributes}
    found = {name for entry in entries.values() if (item := entry.item()) for name in item.attributes}
    if unknown := sorted(found - known):
        raise DataError(
            f"{file}: no item of the model has the attributes {', '.join(unknown)}, only "
            f"{', '.join(sorted(known)) or 'none'}; correct the names, or train with these items"
        )


def _unplaced(entries: Mapping[str, Entry], artefact: Artefact) -> list[str]:
    there = {item.item_id for item in artefact.items}
    values = set(known_values(artefact))
    new = [item for entry in entries.values() if entry.item_id not in there and (item := entry.item())]
    return sorted(item.item_id for item in new if values.isdisjoint(item.values()))
