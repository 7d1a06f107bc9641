"""Authentication of callers and between functions: access, token rotation, and logs without tokens."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from chassis.watched_file import LOOK_AGAIN_S
from tests.demo import DemoState
from tests.running import CLIENT, Running, running_pipeline
from tests.waiting import LIMIT_S, eventually

pytestmark = pytest.mark.may_block


@dataclass(frozen=True)
class SecuredPipeline:
    """The pipeline with tokens everywhere: *callers* for recommend, *services* for the two inner functions."""

    callers: Path
    services: Path
    sent: Path
    functions: tuple[Running, Running, Running]

    @property
    def recommend(self) -> Running:
        return self.functions[2]

    def ask(self, token: str | None, url: str | None = None) -> httpx.Response:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return CLIENT.post(url or self.recommend.url, json={"user_id": "user_1"}, headers=headers)


@pytest.fixture(scope="module")
def secured(demo_state: DemoState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredPipeline]:
    folder = tmp_path_factory.mktemp("tokens")
    callers, services, sent = (folder / name for name in ("callers", "services", "sent"))
    callers.write_text("caller-old\nexpired-one 2020-01-01T00:00:00Z\n")
    services.write_text("service-old\n")
    sent.write_text("service-old\n")
    inner = {"AUTH": "tokens", "AUTH_TOKENS_FILE": str(services)}
    features = {**inner, "FEATURE_STORE_URL": demo_state.store_url}
    ranking = {**inner, "MODEL_PATH": str(demo_state.model_path)}
    outer = {"AUTH": "tokens", "AUTH_TOKENS_FILE": str(callers), "SERVICE_TOKEN_FILE": str(sent)}
    with running_pipeline(features, ranking, outer) as started:
        functions = (started.extract_features, started.rank_items, started.recommend)
        yield SecuredPipeline(callers, services, sent, functions)


def test_a_valid_token_gets_an_answer(secured):
    """The whole pipeline answers a valid token of a caller, because recommend sends its own to the inner functions."""
    answer = secured.ask("caller-old")
    assert answer.status_code == 200
    assert "degraded" not in answer.json()


@pytest.mark.parametrize("token", [None, "wrong", "expired-one", "service-old"])
def test_other_callers_are_challenged(secured, token):
    """A missing, wrong, expired or foreign token gets 401 with a challenge."""
    answer = secured.ask(token)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Bearer realm="recsys"')
    assert answer.json()["code"] == "unauthorized"


def test_inner_functions_refuse_a_callers_token(secured):
    """A caller's token is not valid for the inner functions."""
    for function in secured.functions[:2]:
        assert secured.ask("caller-old", function.url).status_code == 401


def test_probes_need_no_token(secured):
    """The probes are open, because Kubernetes sends no token."""
    for function in secured.functions:
        assert CLIENT.get(function.url + "/readyz").status_code == 200
        assert CLIENT.get(function.url + "/livez").status_code == 200


def test_rotating_tokens_loses_no_request(secured):
    """New tokens are added, callers change over, and old tokens are removed; every request is answered."""
    token = ["caller-old"]
    outcomes: list[tuple[int, bool]] = []
    begun: list[float] = []
    stop = threading.Event()

    def call_repeatedly() -> None:
        with httpx.Client(verify=False, timeout=LIMIT_S) as client:
            while not stop.is_set():
                began = time.monotonic()
                headers = {"authorization": f"Bearer {token[0]}"}
                answer = client.post(secured.recommend.url, json={"user_id": "user_1"}, headers=headers)
                outcomes.append((answer.status_code, "degraded" in answer.json()))
                begun.append(began)

    callers = [threading.Thread(target=call_repeatedly) for _ in range(4)]
    for caller in callers:
        caller.start()
    for file, text in (
        (secured.callers, "caller-old\ncaller-new\n"),
        (secured.services, "service-old\nservice-new\n"),
        (secured.sent, "service-new\n"),
        (secured.services, "service-new\n"),
        (secured.callers, "caller-new\n"),
    ):
        # Replace the file atomically, as the kubelet does.
        draft = file.with_suffix(".new")
        draft.write_text(text)
        draft.replace(file)
        # Every function reads the file again at its first request after that time.
        due = time.monotonic() + LOOK_AGAIN_S
        eventually(lambda: sum(began > due for began in begun) >= 4 * len(callers))  # noqa: B023
        token[0] = "caller-new"
    stop.set()
    for caller in callers:
        caller.join()
    assert len(outcomes) > 50
    assert set(outcomes) == {(200, False)}
    assert secured.ask("caller-old").status_code == 401
    assert secured.ask("caller-new").status_code == 200


def test_no_token_is_in_any_log(secured):
    """The logs contain none of the tokens, neither valid nor invalid ones."""
    secured.ask("caller-secret-wrong")
    for function in secured.functions:
        log = function.log()
        assert log
        for token in ("caller-", "service-old", "service-new", "expired-one", "wrong"):
            assert token not in log
