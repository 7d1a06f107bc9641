"""The report of an evaluation, as a Markdown table, as JSON, and as files in a folder."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from offline.evaluation.quality import Interval, Quality, bootstrap

_COLUMNS = ("model", "NDCG@10 [95 %]", "Recall@20 [95 %]", "coverage", "popularity bias", "seconds")


@dataclass(frozen=True)
class Spread:
    """Standard deviations of the means over splits."""

    ndcg: float
    recall: float


@dataclass(frozen=True)
class Entry:
    """
    The results of a contender.

    Attributes:
        name: Name in the table.
        quality: Quality of its lists.
        ndcg: Mean NDCG@10 over users, with its interval.
        recall: Mean Recall@20 over users, with its interval.
        seconds: Duration of the training; None if the contender was trained elsewhere.
        spread: Standard deviations over splits; None for one split.
    """

    name: str
    quality: Quality
    ndcg: Interval
    recall: Interval
    seconds: float | None
    spread: Spread | None

    @classmethod
    def of(cls, name: str, quality: Quality, *, seconds: float | None, spread: Spread | None) -> "Entry":
        """Return the entry for *quality*."""
        return cls(name, quality, bootstrap(quality.ndcg), bootstrap(quality.recall), seconds, spread)

    def row(self) -> dict[str, Any]:
        """Return the entry as a JSON object."""
        return {
            "model": self.name.strip(),
            "ndcg_10": asdict(self.ndcg),
            "recall_20": asdict(self.recall),
            "coverage": self.quality.coverage,
            "popularity_bias": self.quality.popularity_bias,
            "training_s": self.seconds,
            **({"sd_over_splits": asdict(self.spread)} if self.spread else {}),
        }


@dataclass(frozen=True)
class Report:
    """
    The report of an evaluation.

    Attributes:
        facts: Data, hold-out, sizes and model version; for a served model also the number of differing lists.
        entries: The baselines, then the model.
    """

    facts: dict[str, Any]
    entries: list[Entry]

    def to_json(self) -> str:
        """Return the report as one JSON object."""
        return json.dumps({**self.facts, "rows": [entry.row() for entry in self.entries]}, indent=2)

    def to_markdown(self) -> str:
        """Return the report as an aligned Markdown table, followed by the facts."""
        cells = [_COLUMNS, *(_cells(entry) for entry in self.entries)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(_COLUMNS))]
        lines = [_line(row, widths) for row in cells]
        lines.insert(1, _line(["-" * width for width in widths], widths))
        return "\n".join([*lines, "", ", ".join(f"{name} {value}" for name, value in self.facts.items())])

    def save(self, folder: Path) -> None:
        """Write `evaluation.md` and `evaluation.json` into *folder*."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evaluation.md").write_text(self.to_markdown() + "\n")
        (folder / "evaluation.json").write_text(self.to_json() + "\n")


def _cells(entry: Entry) -> tuple[str, ...]:
    return (
        entry.name,
        _figure(entry.ndcg, entry.spread.ndcg if entry.spread else None),
        _figure(entry.recall, entry.spread.recall if entry.spread else None),
        f"{entry.quality.coverage:.3f}",
        f"{entry.quality.popularity_bias:.2f}",
        "" if entry.seconds is None else f"{entry.seconds:.1f}",
    )


def _figure(interval: Interval, deviation: float | None) -> str:
    text = f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
    return text if deviation is None else f"{text} ± {deviation:.4f}"


def _line(cells: list[str] | tuple[str, ...], widths: list[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
