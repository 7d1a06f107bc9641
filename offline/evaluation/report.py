"""The report of an evaluation, as Markdown tables, as JSON, and as files in a folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from offline.evaluation.quality import MeanInterval, Quality, bootstrap

_COLUMNS = (
    "model",
    "NDCG@10 [95 %]",
    "Recall@20 [95 %]",
    "of min(20, held out)",
    "coverage",
    "popularity bias",
    "seconds",
    "chosen",
)
_LEGEND = "* differs from {reference} with 95 % confidence (bootstrap over users, paired)"


@dataclass(frozen=True)
class Spread:
    """Standard deviations of the means over splits."""

    ndcg: float
    recall: float


@dataclass(frozen=True)
class Figure:
    """A measure's mean with its interval, and its difference from the reference; None for the reference itself."""

    interval: MeanInterval
    difference: MeanInterval | None = None

    @property
    def differs(self) -> bool:
        """Whether the interval of the difference leaves out 0."""
        return self.difference is not None and not self.difference.low <= 0 <= self.difference.high

    def facts(self) -> dict[str, Any]:
        """Return the figure as a JSON object."""
        compared = {"difference": asdict(self.difference), "differs": self.differs} if self.difference else {}
        return asdict(self.interval) | compared

    def text(self, deviation: float | None = None) -> str:
        """Return the figure for a table."""
        spread = "" if deviation is None else f" ± {deviation:.4f}"
        star = "*" if self.differs else ""
        return f"{self.interval.mean:.4f}{star} [{self.interval.low:.4f}, {self.interval.high:.4f}]{spread}"


@dataclass(frozen=True)
class PanelEntry:
    """
    The results of a contender on a panel.

    Attributes:
        name: Name in the table.
        quality: Quality of its lists.
        seconds: Duration of the training; None if the contender was trained elsewhere.
        spread: Standard deviations over splits; None for one split.
        note: Chosen parameters.
        figures: `ndcg_10`, `recall_20` and `recall_20_reachable` with intervals, by name.
    """

    name: str
    quality: Quality
    seconds: float | None = None
    spread: Spread | None = None
    note: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)

    @classmethod
    def all_of(cls, entries: Sequence["PanelEntry"], *, reference: str) -> list["PanelEntry"]:
        """Return *entries* with figures, each compared with the entry *reference* user by user."""
        tables = [_values(entry.quality) for entry in entries]
        (base,) = (table for entry, table in zip(entries, tables, strict=True) if entry.name == reference)
        intervals = iter(bootstrap(np.hstack([part for table in tables for part in (table, table - base)])))
        found = []
        for entry in entries:
            means, differences = ([next(intervals) for _ in _MEASURES] for _ in range(2))
            others = [None] * len(means) if entry.name == reference else differences
            pairs = zip(_MEASURES, means, others, strict=True)
            found.append(replace(entry, figures={name: Figure(mean, other) for name, mean, other in pairs}))
        return found

    def row(self) -> dict[str, Any]:
        """Return the entry as a JSON object."""
        return {
            "model": self.name.strip(),
            **{name: figure.facts() for name, figure in self.figures.items()},
            "coverage": self.quality.coverage,
            "popularity_bias": self.quality.popularity_bias,
            "training_s": self.seconds,
            **({"chosen": self.note} if self.note else {}),
            **({"sd_over_splits": asdict(self.spread)} if self.spread else {}),
        }


_MEASURES = ("ndcg_10", "recall_20", "recall_20_reachable")


def _values(quality: Quality) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.stack([quality.ndcg, quality.recall, quality.recall_reachable], axis=1)


@dataclass(frozen=True)
class Section:
    """
    The entries of one panel.

    Attributes:
        name: Name of the panel.
        users: Number of users.
        entries: The baselines, then the model.
        facts: Further facts, such as the date of a calendar split.
    """

    name: str
    users: int
    entries: Sequence[PanelEntry]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the section as a JSON object."""
        return {"panel": self.name, "users": self.users, **self.facts, "rows": [entry.row() for entry in self.entries]}


@dataclass(frozen=True)
class Report:
    """
    The report of an evaluation.

    Attributes:
        facts: Data, hold-out, sizes and model version; for a served model also the number of differing lists.
        reference: Name of the contender that the others are compared with.
        entries: The hold-out per user: the baselines, then the model.
        calendar: The split at a date; None if it was not measured.
        lengths: Further panels: users that training never saw by number of known items, and new items.
        title: Title of the table of *lengths*.
    """

    facts: dict[str, Any]
    reference: str
    entries: Sequence[PanelEntry]
    calendar: Section | None = None
    lengths: Sequence[Section] = ()
    title: str = "Users that training never saw, by number of known items, and new items"

    def to_json(self) -> str:
        """Return the report as one JSON object."""
        further = {"calendar": self.calendar.to_json()} if self.calendar else {}
        lengths = {"by_length": [section.to_json() for section in self.lengths]} if self.lengths else {}
        rows = [entry.row() for entry in self.entries]
        return json.dumps({**self.facts, "reference": self.reference, "rows": rows, **further, **lengths}, indent=2)

    def to_markdown(self) -> str:
        """Return the report as aligned Markdown tables, followed by the facts."""
        parts = [_table([_COLUMNS, *map(_cells, self.entries)])]
        if self.calendar:
            split = ", ".join(f"{name} {value}" for name, value in self.calendar.facts.items())
            title = f"Split at a date, {split}, {self.calendar.users} users who are known before it:"
            parts += [title, _table([_COLUMNS, *map(_cells, self.calendar.entries)])]
        if self.lengths:
            parts += [f"{self.title}, NDCG@10 / Recall@20:", _table(_length_cells(self.lengths))]
        parts.append(_LEGEND.format(reference=self.reference))
        parts += [f"skipped: {name}: {reason}" for name, reason in self.facts.get("skipped", {}).items()]
        shown = (f"{name} {value}" for name, value in self.facts.items() if name != "skipped")
        return "\n\n".join([*parts, ", ".join(shown)])

    def save(self, folder: Path) -> None:
        """Write `evaluation.md` and `evaluation.json` into the existing *folder*."""
        (folder / "evaluation.md").write_text(self.to_markdown() + "\n")
        (folder / "evaluation.json").write_text(self.to_json() + "\n")


def _cells(entry: PanelEntry) -> tuple[str, ...]:
    figures, spread = entry.figures, entry.spread
    return (
        entry.name,
        figures["ndcg_10"].text(spread.ndcg if spread else None),
        figures["recall_20"].text(spread.recall if spread else None),
        f"{figures['recall_20_reachable'].interval.mean:.4f}",
        f"{entry.quality.coverage:.3f}",
        f"{entry.quality.popularity_bias:.2f}",
        "" if entry.seconds is None else f"{entry.seconds:.1f}",
        entry.note,
    )


def _length_cells(sections: Sequence[Section]) -> list[tuple[str, ...]]:
    """Return a row per panel and a column per contender. A contender can lack panels with large training parts."""
    ordered = sorted(sections, key=lambda section: -len(section.entries))
    names = list(dict.fromkeys(entry.name for section in ordered for entry in section.entries))
    rows = [("panel", "users", *names)]
    for section in sections:
        entries = {entry.name: entry for entry in section.entries}
        rows.append((section.name, str(section.users), *(_pair(entries.get(name)) for name in names)))
    return rows


def _pair(entry: PanelEntry | None) -> str:
    if entry is None:
        return "-"
    ndcg, recall = entry.figures["ndcg_10"], entry.figures["recall_20"]
    return f"{_short(ndcg)} / {_short(recall)}"


def _short(figure: Figure) -> str:
    return f"{figure.interval.mean:.3f}{'*' if figure.differs else ''}"


def _table(cells: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [_line(row, widths) for row in cells]
    lines.insert(1, _line(["-" * width for width in widths], widths))
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
