"""Ask a running pipeline for its recommendations."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec

from offline.evaluation.contenders import batches
from offline.evaluation.quality import DEPTH, Panel
from recsys.contracts.wire import RankedItem, RecommendRequest

_TIMEOUT_S = 30.0
_TRIES = 3


class AskError(Exception):
    """The pipeline at a URL gives no valid answer."""


class _Answered(msgspec.Struct):
    recommendations: list[RankedItem] = []
    degraded: list[str] = []
    error: msgspec.Raw = msgspec.Raw(b"")


class _Results(msgspec.Struct):
    results: list[_Answered]


_results = msgspec.json.Decoder(_Results)


def rank_by_url(url: str, panel: Panel, *, name: str, authority: Path) -> list[list[RankedItem]]:
    """
    Return the answer of the pipeline at *url* for each user of *panel*.

    Args:
        url: URL of the pipeline's recommend function.
        panel: Its users are asked for.
        name: Title of the progress.
        authority: Certificate file of the authority that signs local pipelines. It is used for local URLs, if it
            exists; otherwise the system's authorities are trusted.

    Raises:
        AskError: the pipeline does not answer, refuses, or answers without its features or its model.
    """
    answers: list[list[RankedItem]] = []
    # Strict handling, because a degraded answer, made without one of the hops, does not come from the model.
    headers = {"Prefer": "handling=strict", "Content-Type": "application/json"}
    own = url.startswith("https://127.") and authority.exists()
    trust = ssl.create_default_context(cafile=authority if own else None)
    with httpx.Client(headers=headers, timeout=_TIMEOUT_S, verify=trust) as client:
        for records in batches(panel.records, name=name):
            requests = [
                RecommendRequest(record.user_id, DEPTH, at=_moment(panel.asked_at(record))) for record in records
            ]
            answers += _ask(client, url, msgspec.json.encode({"requests": requests}))
    return answers


def _moment(time_us: int | None) -> datetime | None:
    return None if time_us is None else datetime.fromtimestamp(0, UTC) + timedelta(microseconds=time_us)


def _ask(client: httpx.Client, url: str, body: bytes) -> list[list[RankedItem]]:
    for last in [False] * (_TRIES - 1) + [True]:
        try:
            answer = client.post(url, content=body)
        except httpx.TransportError as error:
            raise AskError(f"nothing answers at {url}: {error}; start the pipeline with ./run.sh up") from error
        busy = answer.status_code in {httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT}
        if last or not busy:
            break
    if answer.status_code != httpx.codes.OK:
        raise AskError(f"{url} answers {answer.status_code}: {answer.text[:200]}")
    try:
        results = _results.decode(answer.content).results
    except msgspec.DecodeError as error:
        raise AskError(f"{url}: the answer has no list of recommendations: {error}; check the URL") from error
    for each in results:
        if bytes(each.error) or each.degraded:
            raise AskError(f"{url} cannot recommend to every user: {bytes(each.error).decode() or each.degraded}")
    return [each.recommendations for each in results]
