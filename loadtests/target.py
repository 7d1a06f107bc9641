"""The pipeline under load: its URLs, its users' histories, and the state of its instances."""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from loadtests.answers import LoadAnswer, judge_recommendations
from loadtests.ledger import Ledger
from localkn import control
from localkn.address import chosen_url
from localkn.errors import LocalknError
from localkn.state import PlatformDirectory

_USERS_PER_REQUEST = 256
_PORT = 8080


class TargetError(Exception):
    """The target of the load test is not a working pipeline."""


@dataclass(frozen=True)
class LoadTarget:
    """
    A running pipeline.

    Attributes:
        url: Public URL, that of recommend.
        features_url: URL of extract_features; None if this machine cannot reach it.
        control: Control socket of the local platform that runs the pipeline; None if it runs elsewhere.
        authority: File with a CA certificate to trust instead of the system's; None for the system's.
        token: Bearer token for every request; empty for none.
    """

    url: str
    features_url: str | None = None
    control: Path | None = None
    authority: Path | None = None
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Headers to send with every request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def trust(self) -> ssl.SSLContext:
        """Return the TLS context that verifies the pipeline's certificate."""
        return ssl.create_default_context(cafile=self.authority)

    def status(self) -> dict[str, Any] | None:
        """Return the status of the local platform; None without a local platform, or without an answer."""
        if self.control is None:
            return None
        try:
            status: dict[str, Any] = control.call(self.control, "status")
        except LocalknError:
            return None
        return status


def find_target(
    *,
    state_dir: Path,
    url: str | None,
    port: int | None,
    features_url: str | None = None,
    token: str,
    authority: Path | None = None,
) -> LoadTarget:
    """
    Find the pipeline: the one of *state_dir*, or the one at *url*.

    Raises:
        TargetError: No pipeline answers.
    """
    socket = PlatformDirectory((state_dir / "platform").absolute()).socket("control")
    status = LoadTarget("", control=socket).status()
    running = status["url"] if status else None
    found = chosen_url(state_dir / "platform", url=url, port=port, default_port=_PORT)
    if status and _same_address(found, str(running)):
        own = status["services"].get("extract-features", {}).get("url")
        of_platform = state_dir / "tls/ca.pem"
        authority = authority or (of_platform if of_platform.exists() else None)
        target = LoadTarget(found, features_url or own, socket, authority, token)
    else:
        target = LoadTarget(found, features_url, authority=authority, token=token)
    _check_answer(target)
    return target


def _same_address(url: str, other: str) -> bool:
    return httpx.URL(url).netloc == httpx.URL(other.replace("localhost", "127.0.0.1")).netloc


def _check_answer(target: LoadTarget) -> None:
    start = "start the pipeline with ./run.sh up --detach, or pass --url"
    try:
        answer = httpx.post(
            target.url, json={"user_id": "user_1"}, headers=target.headers, timeout=10, verify=target.trust()
        )
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise TargetError(f"{target.url} does not answer ({reason}); {start}") from error
    found = LoadAnswer(answer.status_code, answer.content, answer.headers.get("server-timing", ""))
    if found.status in {401, 403}:
        raise TargetError(f"{target.url} requires a token ({found.status}); set LOAD_TOKEN")
    verdict = judge_recommendations(found, user_id="user_1", top_k=5, known=())
    if verdict.fault:
        raise TargetError(f"the server at {target.url} is not the pipeline ({verdict.fault}); {start}")


def learn_histories(target: LoadTarget, ledger: Ledger, user_ids: Sequence[str]) -> None:
    """
    Read the histories of *user_ids* from extract_features into *ledger*; do nothing without a features URL.

    Raises:
        TargetError: extract_features does not answer, or its answer is malformed.
    """
    if target.features_url is None:
        return
    with httpx.Client(timeout=10, verify=target.trust(), headers=target.headers) as client:
        for first in range(0, len(user_ids), _USERS_PER_REQUEST):
            body = {"user_ids": user_ids[first : first + _USERS_PER_REQUEST]}
            try:
                results = client.post(target.features_url, json=body).raise_for_status().json()["results"]
            except (httpx.HTTPError, KeyError, ValueError) as error:
                raise TargetError(
                    f"cannot read histories from extract_features at {target.features_url}: {error}; check --features-url"
                ) from error
            for each in results:
                ledger.learn(each["user_id"], each["history"])


def service_figures(status: Mapping[str, Any] | None) -> dict[str, dict[str, float]]:
    """Add up a platform's status by Service: instances ready and desired, concurrency, memory in MiB."""
    services = status["services"] if status else {}
    return {name: _revision_figures(service["revisions"]) for name, service in services.items()}


def _revision_figures(revisions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    serving = [revision for revision in revisions if revision["traffic_percent"]]
    pids = [instance["pid"] for revision in serving for instance in revision["instances"] if instance["pid"]]
    return {
        "ready": sum(revision["ready"] for revision in serving),
        "desired": sum(revision["desired"] for revision in serving),
        "concurrency": sum(revision["concurrency"] for revision in serving),
        "memory_mb": round(sum(_memory_mb(pid) for pid in pids), 1),
    }


def _memory_mb(pid: int) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0
