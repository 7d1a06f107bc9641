"""The report of a run: one HTML file that needs nothing else, and the same figures as JSON."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from loadtests.plots import plot_all
from loadtests.recording import SATURATED_PERCENT

_TEMPLATE = Template((Path(__file__).parent / "report.html").read_text())

# A generator short of CPU in more of the seconds than this did not show what the pipeline can do.
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
    """Return the page."""
    passed = all(each["holds"] for each in result["limits"])
    pictures = "".join(
        f"<figure><figcaption>{html.escape(caption)}</figcaption>{_named(svg, caption)}</figure>"
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
        what=html.escape(describe(result)),
        notes="".join(f"<p class=note>{html.escape(note)}</p>" for note in notes(result)),
        limits=_table(("limit", "measured", "wanted", ""), limits),
        kinds=_table(("requests", "sent", "failed", "p50 ms", "p95 ms", "p99 ms"), kinds),
        faults=_table(("requests", "what was wrong", "times"), faults) if faults else "<p>None.</p>",
        pictures=pictures,
        # `</script` in a string would end the element.
        data=json.dumps(result).replace("<", "\\u003c"),
    )


def describe(result: Mapping[str, Any]) -> str:
    """Return what was run, in one line."""
    run = result["run"]
    load = f"{run['users']} users" if run["rate"] is None else f"{run['rate']:g} requests a second"
    return f"{run['shape']}, {load}, {run['loop']} loop, {run['duration_s']:g} s, {run['url']}, {run['began']}"


def notes(result: Mapping[str, Any]) -> list[str]:
    """Return what one has to know to read the figures right."""
    summary, run = result["summary"], result["run"]
    said = []
    if run["rate"] is None:
        said.append(
            "Closed loop: a user waits for the answer before asking again, so a slow pipeline is asked less. "
            "Latencies are those of patient users; --rate R measures what arrivals that wait for nobody see."
        )
    else:
        said.append(
            "Open loop: latency counts from the moment a request was due, whether or not it could be sent then."
        )
    if summary["generator_saturated_share"] > _SATURATED_SHARE:
        said.append(
            f"The load generator used more than {SATURATED_PERCENT:.0f} % of a CPU in "
            f"{100 * summary['generator_saturated_share']:.0f} % of the seconds: throughput is a lower bound, and part of "
            "the latency is its own."
        )
    if summary["machine_saturated_share"] > _SATURATED_SHARE:
        said.append(
            f"This machine's CPUs were busy in {100 * summary['machine_saturated_share']:.0f} % of the seconds: the generator "
            "and what else runs here took from what a pipeline on this machine could have used."
        )
    if (summary["late_p99_ms"] or 0.0) > _LATE_MS:
        said.append(
            f"One request in a hundred was sent {summary['late_p99_ms']:.0f} ms or more after it was due: the generator "
            "lacked CPU, or more requests were in flight than it allows. Latencies include it."
        )
    if not run["histories_known"]:
        said.append("extract_features could not be asked: answers were held only against what was shown and clicked.")
    if not run["events"]:
        said.append("No interaction events were sent.")
    if not run["platform_seen"]:
        said.append("The platform is not on this machine: instances, concurrency and memory are not shown.")
    return said


def _named(svg: str, caption: str) -> str:
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(caption)}" ', 1)


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th scope=col>{html.escape(each)}" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}" for cell in row) for row in rows)
    return f"<table><thead><tr>{head}<tbody>{body}</table>"
