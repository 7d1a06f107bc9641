"""The pipeline under load: where its doors are, what is known of its users, and how to look at its instances."""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from loadtests.answers import Answer, judge_recommendations
from loadtests.ledger import Ledger
from localkn import control
from localkn.errors import LocalknError
from localkn.state import StateDirectory

_USERS_AT_ONCE = 256


class TargetError(Exception):
    """No pipeline answers where the load should go."""


@dataclass(frozen=True)
class Target:
    """
    A running pipeline.

    Attributes:
        url: The public door.
        features_url: extract_features' own door; None where there is none from here.
        control: Socket of the local platform that runs it; None where it runs elsewhere.
        authority: CA certificate to trust besides the system's; None for none.
        token: Sent with every request; empty for none.
    """

    url: str
    features_url: str | None = None
    control: Path | None = None
    authority: Path | None = None
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def trust(self) -> ssl.SSLContext:
        """Return what its certificate is checked against."""
        return ssl.create_default_context(cafile=self.authority)

    def status(self) -> dict[str, Any] | None:
        """Return the status of the local platform; None where there is none, or it does not answer now."""
        if self.control is None:
            return None
        try:
            status: dict[str, Any] = control.call(self.control, "status")
        except LocalknError:
            return None
        return status


def find_target(*, state_dir: Path, url: str | None, port: int, features_url: str | None, token: str) -> Target:
    """
    Find the pipeline: of *state_dir*, unless *url* names another one.

    Raises:
        TargetError: nothing that answers like the pipeline is there.
    """
    place = StateDirectory((state_dir / "platform").absolute()).socket("control")
    status = Target("", control=place).status()
    running = status["url"] if status else None
    found = url or running or f"http://127.0.0.1:{port}"
    if status and _same_place(found, str(running)):
        own = status["services"].get("extract-features", {}).get("url")
        authority = state_dir / "tls/ca.pem"
        target = Target(found, features_url or own, place, authority if authority.exists() else None, token)
    else:
        target = Target(found, features_url, token=token)
    _ask_once(target)
    return target


def _same_place(url: str, other: str) -> bool:
    return httpx.URL(url).netloc == httpx.URL(other.replace("localhost", "127.0.0.1")).netloc


def _ask_once(target: Target) -> None:
    start = "start the pipeline with ./run.sh up --detach, or name one with --url"
    try:
        answer = httpx.post(
            target.url, json={"user_id": "user_1"}, headers=target.headers, timeout=10, verify=target.trust()
        )
    except httpx.HTTPError as error:
        raise TargetError(f"nothing answers at {target.url} ({type(error).__name__}); {start}") from error
    found = Answer(answer.status_code, answer.content, answer.headers.get("server-timing", ""))
    if found.status in {401, 403}:
        raise TargetError(f"{target.url} wants a token ({found.status}); set LOAD_TOKEN")
    verdict = judge_recommendations(found, user_id="user_1", top_k=5, known=())
    if verdict.fault:
        raise TargetError(f"what answers at {target.url} is not the pipeline ({verdict.fault}); {start}")


def learn_histories(target: Target, ledger: Ledger, user_ids: Sequence[str]) -> None:
    """
    Ask extract_features what *user_ids* have had; where it cannot be reached, nothing is learnt.

    Raises:
        TargetError: it is there and does not answer as it should.
    """
    if target.features_url is None:
        return
    with httpx.Client(timeout=10, verify=target.trust(), headers=target.headers) as client:
        for first in range(0, len(user_ids), _USERS_AT_ONCE):
            asked = user_ids[first : first + _USERS_AT_ONCE]
            try:
                results = (
                    client.post(target.features_url, json={"user_ids": asked}).raise_for_status().json()["results"]
                )
            except (httpx.HTTPError, KeyError, ValueError) as error:
                raise TargetError(f"extract_features at {target.features_url} does not answer: {error}") from error
            for each in results:
                ledger.learn(each["user_id"], each["history"])


def look(status: Mapping[str, Any] | None) -> dict[str, dict[str, float]]:
    """Sum up a platform's status by Service: instances ready and desired, concurrency, memory in MiB."""
    return {name: _look(service["revisions"]) for name, service in (status or {"services": {}})["services"].items()}


def _look(revisions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
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
