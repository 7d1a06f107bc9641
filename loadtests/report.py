"""The report of a run: one self-contained HTML file, and the same figures as JSON."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from loadtests.plots import plot_all
from loadtests.recorder import SATURATED_PERCENT

_TEMPLATE = Template((Path(__file__).parent / "report.html").read_text())

# If CPU is saturated in a larger share of the seconds, the figures do not show the pipeline's capacity.
_SATURATED_SHARE = 0.1
_LATE_MS = 20.0


def write_report(result: Mapping[str, Any], folder: Path) -> Path:
    """Write `report.html` and `report.json` into *folder*; return the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(result, indent=1))
    page = folder / "report.html"
    page.write_text(render(result))
    return page


def render(result: Mapping[str, Any]) -> str:
    """Return the report as an HTML page."""
    passed = all(each["holds"] for each in result["limits"])
    charts = "".join(
        f"<figure><figcaption>{html.escape(caption)}</figcaption>{_scrolled(_labelled(svg, caption), f'Chart: {caption}')}</figure>"
        for caption, svg in plot_all(result).items()
    )
    kinds = [
        (
            each["kind"],
            f"{each['requests']:,}",
            each["failed"],
            *(f"{each[f'{q}_ms']:.1f}" for q in ("p50", "p95", "p99")),
        )
        for each in result["kinds"]
    ]
    limits = [
        (
            each["name"],
            f"{each['value']:.4g}",
            f"{each['op']} {each['bound']:g}",
            "holds" if each["holds"] else "BROKEN",
        )
        for each in result["limits"]
    ]
    faults = [(each["kind"], each["fault"], f"{each['count']:,}") for each in result["faults"]]
    return _TEMPLATE.substitute(
        status="pass" if passed else "fail",
        verdict=html.escape(result["verdict"]),
        description=html.escape(describe(result)),
        notes="".join(f"<p class=note>{html.escape(note)}</p>" for note in notes(result)),
        limits=_table("limits", ("limit", "measured", "required", "result"), limits),
        kinds=_table("kinds", ("kind", "sent", "failed", "p50 ms", "p95 ms", "p99 ms"), kinds),
        faults="<h2>Faults</h2>" + _table("faults", ("kind", "fault", "count"), faults) if faults else "",
        charts=charts,
        # A `</script` in a string would end the script element.
        data=json.dumps(result).replace("<", "\\u003c"),
    )


def describe(result: Mapping[str, Any]) -> str:
    """Describe the run in one line: shape, load, duration, URL, start."""
    run = result["run"]
    load = f"{run['users']} users" if run["rate"] is None else f"{run['rate']:g} requests per second"
    return f"{run['shape']}, {load}, {run['loop']} loop, {run['duration_s']:g} s, {run['url']}, {run['began']}"


def notes(result: Mapping[str, Any]) -> list[str]:
    """Return notes on how to interpret the figures; the first one describes the loop."""
    summary, run = result["summary"], result["run"]
    if run["rate"] is None:
        loop = (
            "Closed loop: each user waits for an answer before the next request, so a slow pipeline receives fewer "
            "requests and the latencies understate its slowness. --rate R runs an open loop."
        )
    else:
        loop = "Open loop: latency counts from the time a request was due, even if it was sent later."
    found = [loop]
    if summary["generator_saturated_share"] > _SATURATED_SHARE:
        found.append(
            f"The load generator used more than {SATURATED_PERCENT:.0f} % of a CPU in "
            f"{100 * summary['generator_saturated_share']:.0f} % of the seconds: throughput is a lower bound, and the "
            "generator causes part of the latency."
        )
    if summary["machine_saturated_share"] > _SATURATED_SHARE:
        found.append(
            f"This machine's CPUs were busy in {100 * summary['machine_saturated_share']:.0f} % of the seconds: a "
            "pipeline on this machine competed for CPU with the generator and other processes."
        )
    if (summary["late_p99_ms"] or 0.0) > _LATE_MS:
        found.append(
            f"1 % of the requests were sent {summary['late_p99_ms']:.0f} ms or more after they were due: the generator "
            "was short of CPU or at its limit of requests in flight. Latencies include this delay."
        )
    if not run["histories_known"]:
        found.append(
            "No user's history is known: there is no address of extract_features, or --user-ids does not name its "
            "users. Histories contain only items clicked in this run."
        )
    if not run["events"]:
        found.append("The run sent no interaction events.")
    if not run["platform_seen"]:
        found.append("The platform is not on this machine: the report has no instances, concurrency or memory.")
    return found


def _labelled(svg: str, caption: str) -> str:
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(caption)}" ', 1)


def _scrolled(content: str, name: str) -> str:
    """Return a frame that scrolls *content* sideways, also with the keyboard."""
    return f'<div class=scroll role=group tabindex=0 aria-label="{html.escape(name)}">{content}</div>'


def _table(name: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th scope=col>{html.escape(each)}" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}" for cell in row) for row in rows)
    return _scrolled(f"<table><thead><tr>{head}<tbody>{body}</table>", f"Table of {name}")
