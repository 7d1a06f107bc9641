"""`./run.sh shadow`: let a revision of rank-items rank copies of calls, and show how its lists compare."""

import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from localkn.address import read_status
from localkn.errors import LocalknError
from recsys import metrics
from tools.deployment.kn import KnError, kn_of, url_of_tag

_SERVICE, _SETTING, _SHARE = "rank-items", "SHADOW_RANK_ITEMS_URL", "SHADOW_SHARE"
_TIMEOUT_S = 10.0


def run(*, action: str, to: str | None, share: float, namespace: str | None, kn: str, state_dir: Path) -> int:
    """
    Start, stop or show the shadow.

    Returns:
        0; 1 if kn refuses, no such tag exists, or the pipeline does not run.
    """
    client = kn_of(kn, namespace, state_dir)
    try:
        if action == "start":
            url = url_of_tag(client, _SERVICE, to or "")
            client.update("recommend", "--env", f"{_SETTING}={url}", "--env", f"{_SHARE}={share}")
            print(f"{share:.1%} of the calls to {_SERVICE} are copied to {url}")
        elif action == "stop":
            client.update("recommend", "--env", f"{_SETTING}=-")
            print(f"no calls to {_SERVICE} are copied")
        else:
            print("\n".join(describe(_read_metrics(state_dir))))
    except (KnError, LocalknError, httpx.HTTPError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _read_metrics(state_dir: Path) -> dict[str, float]:
    """Return the sums of the samples of all instances of the local pipeline, by name and label."""
    answer = httpx.get(
        f"{read_status(state_dir / 'platform')['dashboard']}/metrics", timeout=_TIMEOUT_S
    ).raise_for_status()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            label = sample.labels.get("outcome") or sample.labels.get("hop") or ""
            if "le" not in sample.labels:
                found[f"{sample.name} {label}".strip()] = found.get(f"{sample.name} {label}".strip(), 0) + sample.value
    return found


def describe(samples: Mapping[str, float]) -> list[str]:
    """Return the lines that say how the shadow compares; *samples* as from `_read_metrics`."""
    outcomes = {
        name: int(samples.get(f"{metrics.SHADOWED.name} {name}", 0)) for name in ("compared", "failed", "dropped")
    }
    lines = [", ".join(f"{count} copies {outcome}" for outcome, count in outcomes.items())]
    for definition, title in ((metrics.SHADOW_OVERLAP, "overlap"), (metrics.SHADOW_ORDER, "agreement in order")):
        if count := samples.get(f"{definition.name}_count"):
            lines.append(f"mean {title} of {int(count)} lists: {samples[f'{definition.name}_sum'] / count:.3f}")
    for hop, title in (("rank_items", "serving"), ("rank_items_shadow", "shadow")):
        if count := samples.get(f"recsys_hop_duration_seconds_count {hop}"):
            mean_ms = samples[f"recsys_hop_duration_seconds_sum {hop}"] / count * 1000
            lines.append(f"mean latency of {int(count)} calls, {title}: {mean_ms:.1f} ms")
    return lines
