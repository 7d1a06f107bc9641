"""Ranges of the remembered time, as the charts draw them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kndashboard.columns import FIGURES, added, figures
from kndashboard.ring import SPANS, Columns, RingFile, RingSpan


@dataclass(frozen=True)
class Range:
    """A length of time that the page offers, and how finely it is drawn."""

    span: RingSpan
    step_s: int
    minutes: int


_SECONDS, _HALF_MINUTES = SPANS
RANGES: Mapping[int, Range] = {
    each.minutes: each
    for each in (
        Range(_SECONDS, 2, 5),
        Range(_SECONDS, 5, 15),
        Range(_SECONDS, 20, 60),
        Range(_HALF_MINUTES, 120, 360),
        Range(_HALF_MINUTES, 480, 1440),
    )
}


def history(ring: RingFile, chosen: Range, *, now: float, after: float | None = None) -> dict[str, Any]:
    """
    Return the figures of each Service in a range that ends *now*, with None where the file has no data.

    Args:
        ring: The file.
        chosen: The range.
        now: Seconds since the epoch.
        after: Leave out the points before this moment.

    Cost: 20 to 60 ms for a whole range, 1 ms for its last point.
    """
    end = int(now // chosen.step_s) + 1
    first = end - chosen.minutes * 60 // chosen.step_s
    begin = max(first, int((after or 0) // chosen.step_s))
    points: dict[int, list[Columns]] = {}
    for at, columns in ring.read(chosen.span, begin * chosen.step_s, now):
        points.setdefault(at // chosen.step_s, []).append(columns)
    names = {name: None for slots in points.values() for columns in slots for name in columns}
    return {
        "begin": begin * chosen.step_s,
        "step": chosen.step_s,
        "points": end - begin,
        "length": end - first,
        "services": {
            name: drawn
            for name in names
            if (drawn := _drawn([_figures(points.get(number, ()), name) for number in range(begin, end)]))
        },
        "marks": [{"at": round(at, 1), "text": text} for at, text in ring.marks() if at >= first * chosen.step_s],
    }


def _figures(slots: Iterable[Columns], name: str) -> Mapping[str, float | None]:
    columns = [slot[name] for slot in slots]
    return figures(added(columns)) if columns else {}


def _drawn(points: Sequence[Mapping[str, float | None]]) -> dict[str, list[float | None]]:
    """Return each figure's values at all *points*, without figures that have no value."""
    drawn = {key: [_rounded(point.get(key)) for point in points] for key in FIGURES}
    return {key: values for key, values in drawn.items() if any(value is not None for value in values)}


def _rounded(value: float | None) -> float | None:
    """Round to three digits: more cannot be seen, and would double the size of the answer."""
    if value is None:
        return None
    short = float(f"{value:.3g}")
    return int(short) if short.is_integer() else short
