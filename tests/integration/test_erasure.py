"""Erasing a user by event, while real instances count events of the user and one of them is killed."""

import contextlib
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from localkn.processes import free_port
from recstore.erasures import digest_user
from recsys.contracts import events
from recsys.features import UNKNOWN_FEATURES
from recsys.records import HistoryItem, UserRecord
from tests.integration.test_metrics import scrape
from tests.running import CLIENT, Running, running
from tests.trained import in_store, scan

pytestmark = pytest.mark.may_block

USER = "ann-of-the-hill"
BOB = UserRecord("bob", "55+", history=[HistoryItem("a", 1.0, 1)])


@pytest.fixture
def store_url(empty_store_url: str) -> str:
    """Return the URL of a store that holds the user and another one."""

    users = [UserRecord(USER, "25-34", history=[HistoryItem("a", 1.0, 1)]), BOB]
    in_store(empty_store_url, lambda store: store.replace(users, population=UNKNOWN_FEATURES), create=True)
    return empty_store_url


@pytest.fixture
def metrics_port() -> int:
    """Return the port at which the second instance shows its metrics."""
    return free_port()


@pytest.fixture
def instances(store_url: str, metrics_port: int) -> Iterator[list[Running]]:
    """Return two instances of extract_features on the same store."""
    with contextlib.ExitStack() as started:
        env = {"FEATURE_STORE_URL": store_url, "REPLY_TO_INTERACTIONS": "on"}
        ports = ("0", str(metrics_port))
        yield [started.enter_context(running("extract_features", {**env, "METRICS_PORT": port})) for port in ports]


def send(instance: Running, number: int, type_: str = events.INTERACTION, user: str = USER) -> httpx.Response:
    data = {"user_id": user}
    if type_ == events.INTERACTION:
        data |= {"kind": "view", "item_id": f"item_{number}"}
    headers = {"ce-specversion": "1.0", "ce-id": f"{number}", "ce-source": "/shop", "ce-type": type_}
    return CLIENT.post(instance.url, json=data, headers=headers)


def deliver(instance: Running, number: int, type_: str = events.INTERACTION) -> httpx.Response:
    """Send an event as a broker does: again, if the instance answers that the store is late."""
    while (reply := send(instance, number, type_)).status_code == 503:
        pass
    return reply


def test_events_in_flight_do_not_bring_a_user_back(instances, store_url, metrics_port):
    """No event sent before, during or after an erasure leaves anything of the user, also if an instance is killed."""
    doomed, other = instances
    with ThreadPoolExecutor(8) as senders:

        def attempt(number: int) -> int:
            with contextlib.suppress(httpx.TransportError):
                return send(instances[number % 2], number).status_code
            return 0

        sent = [senders.submit(attempt, number) for number in range(200)]
        sent[20].result()
        assert deliver(other, 1000, events.ERASED).status_code == 202
        doomed.process.send_signal(signal.SIGKILL)
        statuses = {each.result() for each in sent}
    assert statuses <= {0, 200, 202, 503}
    # A broker repeats the deliveries that were not acknowledged. They are acknowledged now, and none of them counts.
    before = scrape(metrics_port)["recsys_events_total"]["erased",]
    again = [deliver(other, number) for number in range(200)]
    assert {(each.status_code, each.content) for each in again} == {(202, b"")}
    counted = scrape(metrics_port)["recsys_events_total"]
    assert (counted["erased",], counted["rejected",]) == (before + 200, 0)
    answer = other.post({"user_id": USER}).json()
    assert (answer["cold_start"], answer["history"]) == (True, [])
    assert send(other, 1, user="bob").status_code == 200
    (bob,) = in_store(store_url, scan)
    assert (bob.user_id, len(bob.history)) == ("bob", 2)


def test_the_log_holds_a_receipt_and_no_user_id(instances):
    """An instance logs the digest of an erased user and what was removed, and never the id of a user."""
    one, _ = instances
    assert send(one, 1).status_code == 200
    assert send(one, 2, events.ERASED).status_code == 202
    assert send(one, 3, "dev.recsys.unknown.v1").status_code == 422
    broken = {"ce-specversion": "1.0", "ce-id": "4", "ce-source": "/s", "ce-type": events.ERASED}
    refused = CLIENT.post(one.url, json={"user_id": USER, "why": "asked"}, headers=broken)
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "$.why")
    assert one.stop() == 0
    (receipt,) = [json.loads(line) for line in one.log().splitlines() if "user_erased" in line]
    assert receipt["user_sha256"] == digest_user(USER)
    assert (receipt["users"], receipt["items"], receipt["events"]) == (1, 2, 1)
    assert USER not in one.log()


def test_the_fused_service_takes_erasures(demo_state, tmp_path):
    """The service of all functions passes interactions and erasures to extract_features, which removes the user."""
    store = tmp_path / "fused.db"
    store.write_bytes(Path(demo_state.store_url.removeprefix("sqlite:///")).read_bytes())
    env = {"FEATURE_STORE_URL": f"sqlite:///{store}", "MODEL_PATH": str(demo_state.model_path)}
    with running("fused", env) as service:
        assert send(service, 1, user="user_42").status_code == 202
        assert send(service, 2, events.ERASED, user="user_42").status_code == 202
        assert send(service, 3, user="user_42").status_code == 202
        gone, there = in_store(env["FEATURE_STORE_URL"], lambda opened: opened.read(["user_42", "user_41"], history=1))
    assert gone is None
    assert there is not None
