"""Locked doors, between the functions too: who gets in, how tokens are exchanged, and that none is ever logged."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.integration.conftest import DemoState
from tests.running import Running, running

pytestmark = pytest.mark.may_block

LOOKED_AGAIN_S = 1.5


@dataclass(frozen=True)
class Locked:
    """The pipeline with tokens everywhere: *callers* for the public door, *services* for the two inner ones."""

    callers: Path
    services: Path
    sent: Path
    functions: tuple[Running, Running, Running]

    @property
    def recommend(self) -> Running:
        return self.functions[2]

    def ask(self, token: str | None, url: str | None = None) -> httpx.Response:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return httpx.post(url or self.recommend.url, json={"user_id": "user_1"}, headers=headers)


@pytest.fixture(scope="module")
def locked(demo_state: DemoState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    folder = tmp_path_factory.mktemp("tokens")
    callers, services, sent = (folder / name for name in ("callers", "services", "sent"))
    callers.write_text("caller-old\nexpired-one 2020-01-01T00:00:00Z\n")
    services.write_text("service-old\n")
    sent.write_text("service-old\n")
    inner = {"AUTH": "tokens", "AUTH_TOKENS_FILE": str(services)}
    with ExitStack() as stack:
        features = stack.enter_context(
            running("extract_features", {**inner, "FEATURE_STORE_URL": demo_state.store_url})
        )
        ranking = stack.enter_context(running("rank_items", {**inner, "MODEL_PATH": str(demo_state.model_path)}))
        env = {
            "AUTH": "tokens",
            "AUTH_TOKENS_FILE": str(callers),
            "SERVICE_TOKEN_FILE": str(sent),
            "EXTRACT_FEATURES_URL": features.url,
            "RANK_ITEMS_URL": ranking.url,
        }
        recommend = stack.enter_context(running("recommend", env))
        yield Locked(callers, services, sent, (features, ranking, recommend))


def test_the_right_token_opens_every_door(locked):
    """With a caller's token the whole pipeline answers: recommend has a token of its own for the inner doors."""
    answer = locked.ask("caller-old")
    assert answer.status_code == 200
    assert "degraded" not in answer.json()


@pytest.mark.parametrize("token", [None, "wrong", "expired-one", "service-old"])
def test_other_callers_get_a_challenge(locked, token):
    """Missing, wrong, expired, or meant for another door: 401 and how to authenticate."""
    answer = locked.ask(token)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Bearer realm="recsys"')
    assert answer.json()["code"] == "unauthorized"


def test_the_inner_doors_are_locked_too(locked):
    """A caller's token does not open the functions behind."""
    for function in locked.functions[:2]:
        assert locked.ask("caller-old", function.url).status_code == 401


def test_probes_stay_open(locked):
    """Kubernetes has no token."""
    for function in locked.functions:
        assert httpx.get(function.url + "/readyz").status_code == 200
        assert httpx.get(function.url + "/livez").status_code == 200


def test_exchanging_tokens_loses_no_request(locked):
    """New tokens in beside the old, callers moved over, old ones out: every request on the way is answered."""
    token = ["caller-old"]
    outcomes: list[tuple[int, bool]] = []
    stop = threading.Event()

    def call_on_and_on() -> None:
        with httpx.Client() as client:
            while not stop.is_set():
                headers = {"authorization": f"Bearer {token[0]}"}
                answer = client.post(locked.recommend.url, json={"user_id": "user_1"}, headers=headers)
                outcomes.append((answer.status_code, "degraded" in answer.json()))

    callers = [threading.Thread(target=call_on_and_on) for _ in range(4)]
    for caller in callers:
        caller.start()
    for file, text in (
        (locked.callers, "caller-old\ncaller-new\n"),
        (locked.services, "service-old\nservice-new\n"),
        (locked.sent, "service-new\n"),
        (locked.services, "service-new\n"),
        (locked.callers, "caller-new\n"),
    ):
        # As kubelet does: the new content appears at once, never half of it.
        draft = file.with_suffix(".new")
        draft.write_text(text)
        draft.replace(file)
        time.sleep(LOOKED_AGAIN_S)
        token[0] = "caller-new"
    stop.set()
    for caller in callers:
        caller.join()
    assert len(outcomes) > 50
    assert set(outcomes) == {(200, False)}
    assert locked.ask("caller-old").status_code == 401
    assert locked.ask("caller-new").status_code == 200


def test_no_token_is_in_any_log(locked):
    """Whatever was logged so far holds none of the tokens, right or wrong."""
    locked.ask("caller-secret-wrong")
    for function in locked.functions:
        log = function.log()
        assert log
        for token in ("caller-", "service-old", "service-new", "expired-one", "wrong"):
            assert token not in log
