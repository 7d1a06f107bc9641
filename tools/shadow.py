"""`./run.sh shadow`: let a revision of rank-items rank copies of calls, and show how its lists compare."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from localkn.address import dashboard_url
from localkn.errors import LocalknError
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
            shadow = _read_figures(state_dir)
            print("\n".join(describe(shadow)) if shadow else f"no calls to {_SERVICE} are copied")
    except (KnError, LocalknError, httpx.HTTPError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _read_figures(state_dir: Path) -> dict[str, Any] | None:
    """Return what the dashboard of the local pipeline shows of the shadow; None if no shadow runs."""
    url = f"{dashboard_url(state_dir / 'platform')}/_dashboard/changes"
    shadow: dict[str, Any] | None = httpx.get(url, timeout=_TIMEOUT_S).raise_for_status().json()["shadow"]
    return shadow


def describe(shadow: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that say how the *shadow* compares."""
    yield ", ".join(f"{count:.0f} copies {outcome}" for outcome, count in shadow["copies"].items())
    for figure, title in (("overlap", "overlap"), ("order", "agreement in order")):
        if (mean := shadow[figure]) is not None:
            yield f"mean {title} of the lists: {mean:.3f}"
    for title, mean_s in shadow["latency_s"].items():
        if mean_s is not None:
            yield f"mean latency of a call, {title}: {mean_s * 1000:.1f} ms"
