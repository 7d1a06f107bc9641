"""Runs kn on a cluster, or localkn's verbs of the same names on the platform of this machine."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TIMEOUT_S = 900
_SETTLE_S = 120.0
_AGAIN_S = 0.2


class KnError(Exception):
    """kn failed; the message is its output."""


@dataclass
class Kn:
    """
    The command line of kn.

    Args:
        command: The words that start kn, for instance `kn --context prod`.
        namespace: Of the Service; a flag of kn's verbs, not of kn. None for the configured one.

    Attributes:
        said: Every changing command so far, for the report.
    """

    command: Sequence[str]
    namespace: str | None = None

    def __post_init__(self) -> None:
        self.said: list[str] = []

    def update(self, name: str, *flags: str) -> None:
        """
        `kn service update NAME FLAGS...`.

        Raises:
            KnError: kn refused, or the new revision did not become ready.
        """
        words = ["service", "update", name, *flags]
        self.said.append(shlex.join(["kn", *words, *self._where()]))
        self._run(words)

    def route(self, name: str, shares: Mapping[str, int], *flags: str) -> None:
        """
        Move traffic to *shares*, by revision or tag, and wait until it has moved.

        Does not wait for the Service as a whole: it is not ready while its latest revision has failed.

        Raises:
            KnError: kn refused, or the traffic has not moved in time.
        """
        given = [word for target, percent in shares.items() for word in ("--traffic", f"{target}={percent}")]
        self.update(name, *given, *flags, "--no-wait")
        self.settle(name)

    def settle(self, name: str) -> None:
        """
        Wait until the traffic is divided as `spec.traffic` says.

        Raises:
            KnError: The traffic has not moved in time.
        """
        deadline = time.monotonic() + _SETTLE_S
        while not _is_routed(self.service(name)):
            if time.monotonic() > deadline:
                raise KnError(f"traffic of {name} has not moved within {_SETTLE_S:.0f} s")
            time.sleep(_AGAIN_S)

    def service(self, name: str) -> dict[str, Any]:
        """
        Return the Service.

        Raises:
            KnError: The Service does not exist.
        """
        return dict(json.loads(self._run(["service", "describe", name, "-o", "json"])))

    def _where(self) -> list[str]:
        return ["--namespace", self.namespace] if self.namespace else []

    def _run(self, words: Sequence[str]) -> str:
        try:
            # A new session: Ctrl-C must not end a kn that restores a Service after an interrupted rollout.
            done = subprocess.run(
                [*self.command, *words, *self._where()], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KnError(f"{self.command[0]} does not run: {error}") from error
        if done.returncode:
            raise KnError((done.stderr or done.stdout).strip())
        return done.stdout


def traffic(service: Mapping[str, Any]) -> dict[str, int]:
    """Return the percentage of each revision that has traffic."""
    found: dict[str, int] = {}
    for target in service["status"].get("traffic") or ():
        if percent := target.get("percent"):
            found[target["revisionName"]] = found.get(target["revisionName"], 0) + percent
    return found


def tagged(service: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the targets that have a tag, by tag."""
    return {target["tag"]: target for target in service["status"].get("traffic") or () if target.get("tag")}


def url_of(service: Mapping[str, Any], tag: str | None = None, *, gateway: str | None = None) -> str:
    """
    Return the URL of *service*, or of its revision with *tag*, to ask for at *gateway*.

    A gateway without TLS answers for public names with a redirect to HTTPS, so the name inside the cluster replaces them.
    """
    status = service["status"]
    url = str(tagged(service)[tag]["url"] if tag else status["url"])
    if gateway and not gateway.startswith("https:") and url.startswith("https:"):
        scheme, _, private = status["address"]["url"].partition("://")
        return f"{scheme}://{f'{tag}-' if tag else ''}{private}"
    return url


def url_of_tag(kn: Kn, service: str, tag: str) -> str:
    """
    Return the address of the revision of *service* that has *tag*.

    Raises:
        ValueError: no revision has the tag.
        KnError: kn failed.
    """
    targets = tagged(kn.service(service))
    if not (url := targets.get(tag, {}).get("url")):
        known = ", ".join(sorted(targets)) or "none"
        raise ValueError(
            f"{service} has no tag {tag!r} (tags: {known}); "
            f"make one with kn service update {service} --tag REVISION={tag}"
        )
    return str(url)


def _is_routed(service: Mapping[str, Any]) -> bool:
    """Tell whether the traffic is divided as `spec.traffic` says; the rest of the Service may be unready."""

    def plain(targets: Sequence[Mapping[str, Any]], latest: str | None) -> list[tuple[Any, Any, Any]]:
        return sorted(
            (target.get("revisionName") or latest or "", target.get("percent") or 0, target.get("tag") or "")
            for target in targets
        )

    status = service["status"]
    latest = status.get("latestReadyRevisionName")
    if status.get("observedGeneration", service["metadata"].get("generation")) != service["metadata"].get("generation"):
        return False
    return plain(service["spec"].get("traffic") or (), latest) == plain(status.get("traffic") or (), latest)


def kn_of(kn: str, namespace: str | None, state_dir: Path) -> Kn:
    """Return *kn* on the cluster, or without a namespace localkn's own kn on the platform of *state_dir*."""
    if namespace:
        return Kn(shlex.split(kn), namespace)
    # `kn` of localkn takes the state directory among its own flags.
    return Kn([sys.executable, "-m", "localkn", "kn", "--state-dir", str(state_dir / "platform")])
