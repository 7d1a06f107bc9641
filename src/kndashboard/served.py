"""
The model that the platform serves, and the titles of its items.

The manifests of the platform name the artefact: `MODEL_PATH` of a Service. The dashboard reads the description and the
items of an artefact in a folder, and none of its arrays. The dashboard has no access to an object store, so it shows
what the instances report of an artefact there.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kndashboard.settings import first_setting
from kndashboard.snapshots import Snapshot
from localkn.errors import LocalknError
from recsys import metrics

# A longer list of titles would exceed the memory that the dashboard may use.
_MOST_BYTES = 4 * 2**20
_SHOWN = 50


class ServedModel:
    """
    The artefact that the platform serves now.

    Args:
        ask: Returns the Services as Kubernetes objects; may block, and raises LocalknError if no platform runs.
    """

    def __init__(self, ask: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        self._ask = ask
        self._read: dict[Path, tuple[float, Any]] = {}

    def place(self) -> str:
        """Return the folder or the URL of the artefact; "" if no Service names one, or no platform runs."""
        try:
            return first_setting(self._ask(), "MODEL_PATH")
        except LocalknError:
            return ""

    def card(self) -> dict[str, Any]:
        """Return the place of the artefact, and what its manifest says; only the place without a manifest."""
        place = self.place()
        manifest = self._content(place, "manifest.json")
        if not isinstance(manifest, dict):
            return {"place": place}
        training = manifest.get("training") or {}
        facts = {key: training.get(key) for key in ("dataset", "users", "items", "ties", "choice")}
        return {"place": place} | {key: manifest.get(key) for key in ("name", "version", "metrics")} | facts

    def titles(self) -> Mapping[str, str]:
        """Return the title of each item of the artefact."""
        return {item["item_id"]: item.get("title", "") for item in self._items()}

    def _items(self) -> Sequence[Mapping[str, Any]]:
        """Return the items of the artefact; none if the list is missing, or longer than 4 MB."""
        items = self._content(self.place(), "items.json")
        return items if isinstance(items, list) else ()

    def search(self, wanted: str) -> dict[str, Any]:
        """
        Return the first items whose id, title or attributes contain *wanted*, and how many there are; or the problem.

        The values of an item are those of its attributes, in their order.
        """
        if "://" in (place := self.place()):
            problem = f"the catalogue is not shown: the page cannot read the model in {place}"
            return {"total": 0, "items": [], "problem": problem}
        key = wanted.casefold()
        found = [
            {"item_id": item["item_id"], "title": title, "values": values}
            for item in self._items()
            if key
            in "\n".join((item["item_id"], title := item.get("title", ""), *(values := _values(item)))).casefold()
        ]
        return {"total": len(found), "items": found[:_SHOWN]}

    def _content(self, place: str, name: str) -> Any:
        """Return the content of a file of the artefact in *place*, read once for each version of the file."""
        if not place or "://" in place:
            return None
        folder = Path(place)
        path = folder / name
        try:
            found = path.stat()
            if found.st_size > _MOST_BYTES:
                return None
            if path not in self._read or self._read[path][0] != found.st_mtime:
                self._read = {other: kept for other, kept in self._read.items() if other.parent == folder}
                self._read[path] = found.st_mtime, json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None
        return self._read[path][1]


def _values(item: Mapping[str, Any]) -> list[str]:
    return [value for values in item.get("attributes", {}).values() for value in values]


def in_use(now: Snapshot) -> list[dict[str, Any]]:
    """Return the models that the instances have loaded, with the number of instances and the age in seconds."""
    found: dict[tuple[str, ...], list[float]] = {}
    for exposed in now.scraped.values():
        ages = exposed.samples.get(metrics.MODEL_AGE.name, {})
        for labels in exposed.samples.get(metrics.MODEL.name, {}):
            named = dict(labels)
            key = tuple(named.get(label, "") for label in metrics.MODEL.labels)
            found.setdefault(key, []).append(max(ages.values(), default=0.0))
    return [
        {**dict(zip(metrics.MODEL.labels, key, strict=True)), "instances": len(ages), "age_s": max(ages)}
        for key, ages in found.items()
    ]
