"""The charts of a report, each a self-contained SVG."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette is distinguishable with every kind of colour vision. Lines differ in style as well.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#777777"
_CYCLE = (BLUE, ORANGE, GREEN, PURPLE, RED)
_STYLES = ("-", "--", "-.", ":")
_SIZE_IN = (9.0, 3.1)
# The page sets the colours of text and grid, which differ in its two themes. These stand for them until the SVG is written.
_INK, _GRID = "#010203", "#040506"
_THEME = {_INK: "currentColor", _GRID: "var(--line)"}
_LOOK: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif", "text.color": _INK, "axes.labelcolor": _INK,
    "axes.edgecolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
}  # fmt: skip

Draw = Callable[[Axes, Mapping[str, Any]], None]


def plot_all(result: Mapping[str, Any]) -> dict[str, str]:
    """Return a mapping of caption to SVG, with the charts that the result has data for."""
    services, seconds = result["platform"]["services"].values(), result["seconds"]

    def seen(column: str) -> bool:
        return any(value is not None for service in services for value in service[column])

    wanted: list[tuple[str, Draw, bool]] = [
        ("Latency of recommendations over time", _latency, True),
        ("Throughput and target load", _throughput, True),
        ("Failed and degraded answers", _faults, any(seconds["failed"]) or any(seconds["degraded"])),
        ("Instances, ready (filled) and desired (dotted)", _instances, seen("ready")),
        ("Requests in flight by Service, as the autoscaler sees them", _concurrency, seen("concurrency")),
        ("Batch sizes", _batches, bool(result["batches"])),
        ("Memory by Service", _memory, seen("memory_mb")),
        ("CPU of the load generator and of the whole machine", _generator, len(result["platform"]["elapsed_s"]) > 1),
    ]
    return {caption: _svg(draw, result) for caption, draw, has_data in wanted if has_data}


def _svg(draw: Draw, result: Mapping[str, Any]) -> str:
    # Text stays text: readers can search it, screen readers can read it, and the file is smaller than with glyph paths.
    with mpl.rc_context(_LOOK):
        figure = Figure(figsize=_SIZE_IN)
        axes = figure.add_subplot()
        # Fixed margins give the time axes of all charts the same length.
        figure.subplots_adjust(left=0.08, right=0.93, top=0.9, bottom=0.15)
        draw(axes, result)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=_GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=6, frameon=False, borderaxespad=0.1)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    written = drawn.getvalue()
    for placeholder, colour in _THEME.items():
        written = written.replace(placeholder, colour)
    # An SVG inside an HTML page must not have an XML prologue.
    return written[written.index("<svg") :]


def _over_time(axes: Axes, unit: str, result: Mapping[str, Any]) -> None:
    axes.set_xlabel("seconds")
    axes.set_ylabel(unit)
    axes.set_xlim(0, result["run"]["duration_s"])
    axes.set_ylim(bottom=0)


def _latency(axes: Axes, result: Mapping[str, Any]) -> None:
    seconds = result["seconds"]
    for name, colour, style in (("p50", BLUE, "-"), ("p95", ORANGE, "--"), ("p99", RED, "-.")):
        values = [float("nan") if value is None else value for value in seconds[f"{name}_ms"]]
        axes.plot(_middles(values), values, style, color=colour, label=name, linewidth=1.4)
    _over_time(axes, "ms", result)


def _throughput(axes: Axes, result: Mapping[str, Any]) -> None:
    answered, platform = result["seconds"]["rps"], result["platform"]
    axes.plot(_middles(answered), answered, color=BLUE, label="answered", linewidth=1.4)
    if result["run"]["rate"] is None:
        _over_time(axes, "requests a second", result)
        beside = axes.twinx()
        beside.step(platform["elapsed_s"], platform["wanted"], "--", where="post", color=GREY, linewidth=1)
        beside.set_ylabel("users (dashed)")
        beside.set_ylim(bottom=0)
        beside.spines["top"].set_visible(False)
    else:
        axes.step(platform["elapsed_s"], platform["wanted"], "--", where="post", color=GREY, label="target")
        _over_time(axes, "requests a second", result)


def _faults(axes: Axes, result: Mapping[str, Any]) -> None:
    seconds = result["seconds"]
    middles = _middles(seconds["failed"])
    axes.bar(middles, seconds["failed"], width=1.0, color=RED, label="failed")
    axes.bar(middles, seconds["degraded"], width=0.5, color=ORANGE, label="degraded")
    _over_time(axes, "answers a second", result)


def _instances(axes: Axes, result: Mapping[str, Any]) -> None:
    platform = result["platform"]
    for number, (name, columns) in enumerate(platform["services"].items()):
        # A small shift keeps lines of equal height from hiding each other.
        shift = (number - (len(platform["services"]) - 1) / 2) * 0.06
        ready, desired = (_shifted(columns[column], shift) for column in ("ready", "desired"))
        colour = _CYCLE[number % len(_CYCLE)]
        axes.fill_between(platform["elapsed_s"], ready, step="post", alpha=0.13, color=colour)
        axes.step(platform["elapsed_s"], ready, where="post", color=colour, label=name, linewidth=1.8)
        axes.step(platform["elapsed_s"], desired, ":", where="post", color=colour, linewidth=1.2)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _over_time(axes, "instances", result)


def _shifted(values: Sequence[float | None], shift: float) -> list[float]:
    return [float("nan") if value is None else value + shift for value in values]


def _concurrency(axes: Axes, result: Mapping[str, Any]) -> None:
    _by_service(axes, result, "concurrency", "requests")


def _memory(axes: Axes, result: Mapping[str, Any]) -> None:
    _by_service(axes, result, "memory_mb", "MiB, all instances")


def _by_service(axes: Axes, result: Mapping[str, Any], column: str, unit: str) -> None:
    platform = result["platform"]
    for number, (name, columns) in enumerate(platform["services"].items()):
        values = _shifted(columns[column], 0.0)
        style, colour = _STYLES[number % len(_STYLES)], _CYCLE[number % len(_CYCLE)]
        axes.plot(platform["elapsed_s"], values, style, color=colour, label=name, linewidth=1.4)
    _over_time(axes, unit, result)


def _batches(axes: Axes, result: Mapping[str, Any]) -> None:
    counts = {int(size): count for size, count in result["batches"].items()}
    total = sum(counts.values())
    axes.bar(list(counts), [100 * count / total for count in counts.values()], color=BLUE)
    mean = sum(size * count for size, count in counts.items()) / total
    axes.axvline(mean, linestyle="--", color=GREY, linewidth=1, label=f"mean {mean:.1f}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("size of the batch that ranked the request")
    axes.set_ylabel("% of requests")
    axes.set_xlim(0.4, max(counts) + 0.6)


def _generator(axes: Axes, result: Mapping[str, Any]) -> None:
    platform = result["platform"]
    elapsed_s = platform["elapsed_s"][1:]
    axes.plot(elapsed_s, platform["cpu_percent"][1:], color=BLUE, label="generator, % of one CPU", linewidth=1.4)
    axes.plot(elapsed_s, platform["machine_percent"][1:], "--", color=ORANGE, label="machine, % of all", linewidth=1.4)
    _over_time(axes, "%", result)
    axes.set_ylim(0, 105)


def _middles(values: Sequence[Any]) -> list[float]:
    return [second + 0.5 for second in range(len(values))]
