"""Brokers and Triggers of the manifests on this machine, controlled through the command line."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from localkn import control
from tests.localkn.running import SAMPLE, Running, needs_envoy
from tests.localkn.test_direct import answer
from tests.waiting import LIMIT_S, eventually


class Events:
    """A running platform with a Broker."""

    def __init__(self, platform: Running) -> None:
        self.platform = platform
        (self.url,) = self.ask("status")["brokers"].values()

    def ask(self, verb: str) -> Any:
        return control.call(self.platform.state.socket("control"), verb)

    def post(self, type_: str, id_: str, url: str = "", **headers: str) -> int:
        """Post an event and return the status of the answer."""
        attributes = {"ce-specversion": "1.0", "ce-source": "/s", "ce-type": type_, "ce-id": id_, **headers}
        try:
            with urlopen(Request(url or self.url, b"{}", attributes), timeout=LIMIT_S) as answered:
                return int(answered.status)
        except HTTPError as error:
            return error.code

    def trigger(self, name: str) -> dict[str, Any]:
        return self.ask("events")["triggers"][f"default/{name}"]  # type: ignore[no-any-return]

    def broker_pid(self) -> int | None:
        (revision,) = self.ask("status")["built_in"]["broker-ingress"]["revisions"]
        return next((instance["pid"] for instance in revision["instances"] if instance["state"] == "ready"), None)


@pytest.fixture(scope="module", params=["--direct", pytest.param("", marks=needs_envoy)])
def events(request: pytest.FixtureRequest, module_platform: Running) -> Iterator[Events]:
    """Start the sample with a Broker, with and without --direct."""
    module_platform.manifests.write_text(
        (SAMPLE / "services.yaml").read_text() + "---\n" + (SAMPLE / "events.yaml").read_text()
    )
    done = module_platform.up("--public", "front", *([request.param] if request.param else []))
    assert done.returncode == 0, done.stderr
    assert "Broker default/default takes events at http://127.0.0.1:" in done.stdout
    yield Events(module_platform)
    module_platform.run("down")
    # Undelivered events would otherwise carry over to the platform of the next parameter.
    shutil.rmtree(module_platform.state.events)


def test_an_event_is_accepted_and_delivered(events: Events) -> None:
    """The broker delivers an event to the Trigger whose filter matches, and refuses invalid ones."""
    assert events.post("good.one", "1") == 202
    eventually(lambda: events.trigger("good")["delivered"] == 1)
    assert events.post("good.one", "") == 400
    assert events.post("good.one", "2", url=events.url.replace("/default/default", "/default/other")) == 404


@needs_envoy
@pytest.mark.parametrize("events", [""], indirect=True)
def test_the_broker_answers_to_its_cluster_name(events: Events) -> None:
    """The ingress routes the broker's cluster host name; with --direct the broker has a separate port instead."""
    url, host = (
        f"http://127.0.0.1:{events.platform.port}/default/default",
        "broker-ingress.knative-eventing.svc.cluster.local",
    )
    before = events.trigger("good")["delivered"]
    assert events.post("good.two", "1", url=url, host=host) == 202
    eventually(lambda: events.trigger("good")["delivered"] == before + 1)


def test_a_binding_sets_the_local_sink_url(events: Events) -> None:
    """K_SINK of the subject is the broker's local URL, and other Services have no K_SINK."""
    back = events.ask("status")["services"]["back"]["url"]
    assert answer(int(back.rpartition(":")[2]))["env"]["K_SINK"] == events.url
    assert "K_SINK" not in answer(events.platform.port)["env"]


def test_dead_letters_are_listed_and_redriven(events: Events) -> None:
    """A refused event is listed with its reason, and each redrive delivers the event once more."""
    events.post("bad", "poison")
    eventually(lambda: events.trigger("bad")["dead"] == 1)
    shown = events.platform.run("events").stdout
    assert "dead letter poison (bad of /s) of default/bad" in shown
    assert "answered 422" in shown
    assert "dead letters: 1" in shown
    assert events.trigger("bad")["failed"] == 1
    assert "by their ids, --trigger NAME, --source URI or --all" in events.platform.run("events", "redrive").stderr
    missed = events.platform.run("events", "redrive", "other", "--json")
    assert (missed.returncode, json.loads(missed.stdout)) == (1, {"redriven": 0, "unknown": ["other"]})
    assert "no dead letter has the id other" in missed.stderr
    missed = events.platform.run("events", "redrive", "--source", "/other")
    assert (missed.returncode, missed.stderr) == (1, "no dead letter matches; `events` lists them\n")
    missed = events.platform.run("events", "redrive", "other")
    assert (missed.returncode, missed.stdout) == (1, "")
    for number, how in enumerate((["poison"], ["--trigger", "bad"], ["--all"]), 2):
        assert "dead letters sent again: 1" in events.platform.run("events", "redrive", *how).stdout
        failed_again = (number, 1)
        eventually(lambda: (events.trigger("bad")["failed"], events.trigger("bad")["dead"]) == failed_again)  # noqa: B023


def test_a_killed_broker_keeps_its_events(events: Events) -> None:
    """Accepted events are still in the queue after a restart and are retried."""
    for number in range(20):
        assert events.post("later", str(number)) == 202
    pid = events.broker_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: events.broker_pid() not in {None, pid})
    eventually(lambda: events.post("good.three", "1") == 202)
    assert events.trigger("later")["waiting"] == 20
    figures = json.loads(events.platform.run("events", "--json").stdout)
    assert figures["triggers"]["default/later"]["retrying"] >= 1
    assert "waiting: 20" in events.platform.run("events").stdout


def test_events_survive_the_platform(events: Events) -> None:
    """Undelivered events are still there after `down` and `up`."""
    direct = ["--direct"] if events.ask("status")["direct"] else []
    events.platform.run("down")
    assert events.platform.up("--public", "front", *direct).returncode == 0
    assert Events(events.platform).trigger("later")["waiting"] == 20
