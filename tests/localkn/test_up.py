"""The checks that `up` makes of its options and manifests before it starts anything."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from kubeyaml.errors import EditError, KubeyamlError, ManifestError
from localkn import up
from localkn.errors import LocalknError, PlatformError, RefusedError, UsageError
from localkn.platform import Platform
from localkn.processes import Processes
from localkn.state import PlatformDirectory
from tests.localkn.running import SAMPLE

pytestmark = pytest.mark.anyio


@pytest.fixture
async def compose(tmp_path: Path) -> AsyncIterator[Callable[..., Platform]]:
    """Return a function that composes the sample with options and one replaced piece of its manifests."""
    async with Processes() as processes:

        def make(old: str = "", new: str = "", **options: Any) -> Platform:
            text = (SAMPLE / "services.yaml").read_text()
            assert old in text
            (tmp_path / "m.yaml").write_text(text.replace(old, new))
            state = PlatformDirectory(tmp_path / "state")
            given = up.Options(tmp_path / "m.yaml", SAMPLE / "commands.yaml", state, port=1, **options)
            return up.compose(given, processes)

        yield make


async def test_without_envoy_the_platform_runs_directly(
    compose: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notes say that Envoy is missing and name every setting that has no effect."""
    monkeypatch.setattr(up, "executable", lambda: None)
    platform = compose('min-scale: "1"\n', 'min-scale: "0"\n')
    assert platform.direct
    assert list(platform.notes) == [
        "PodMonitor front: ignored on this machine",
        "Service front: min-scale 0 runs as 1 without an ingress",
        "No wheel of Envoy for this platform: running as with --direct",
    ]


async def test_overrides_change_the_manifests(compose: Callable[..., Platform]) -> None:
    """An override applies to one Service or to all, sets any value, and can remove a variable."""
    platform = compose(env_override=["front:A=x:y=z", "B=2", "BACK_URL-"], direct=True)
    env = {
        name: {variable["name"]: variable["value"] for variable in service.latest_created.template.env}
        for name, service in platform.services.items()
    }
    assert env == {"front": {"A": "x:y=z", "B": "2"}, "back": {"GREETING": "hello", "B": "2"}}


@pytest.mark.parametrize(
    ("old", "new", "options", "message"),
    [
        ("cluster-local", "public", {}, "name it with --public: front, back"),
        ("", "", {"public": "nobody"}, "--public nobody: there is no such Service, only front, back"),
        ("serving.knative.dev/v1", "apps/v1", {}, "no Knative Service"),
        ("timeoutSeconds: 10", "timeoutSeconds: 0x", {}, "Service front: spec.template.spec.timeoutSeconds: '0x' is not a valid number"),
        ("{name: settings}}", "{name: absent}}", {}, "Service back: ConfigMap absent is not in the manifests"),
        ("acme/sample:v1", "acme/unknown:v1", {}, "no command for image registry.example.com/acme/unknown:v1"),
        ("", "", {"env_override": ["A"]}, "'A' is neither NAME=VALUE nor NAME-"),
        ("", "", {"env_override": ["nobody:A=1"]}, "nobody:A=1: there is no Service nobody"),
        ("name: back\n", "name: front\n  namespace: b\n", {"public": "front"}, "Service front: there are two of that name"),
        ("", "", {"tls_cert": Path("x")}, "belong together"),
        ("", "", {"tls_cert": Path("x"), "tls_key": Path("y"), "direct": True}, "--direct has no ingress"),
        ("", "", {"tls_cert": Path("x"), "tls_key": Path("y")}, "are not a certificate and its key"),
        ("name: front", "name: back", {}, "is defined in"),
    ],
)  # fmt: skip
async def test_invalid_manifests_and_options_are_refused(
    compose: Callable[..., Platform], old: str, new: str, options: dict[str, Any], message: str
) -> None:
    """The error is one line that names the fault and its place."""
    with pytest.raises((LocalknError, KubeyamlError)) as refused:
        compose(old, new, **options)
    assert message in str(refused.value)
    assert type(refused.value) in {ManifestError, PlatformError, EditError, UsageError}


def test_sockets_of_a_long_path_are_in_the_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a socket has at most 108 bytes; its directory is the user's own, and goes with the platform."""
    shallow, deep = PlatformDirectory(Path("/s")), PlatformDirectory(tmp_path / ("d" * 90))
    assert shallow.socket("control") == Path("/s/control.sock")
    place = deep.socket("control")
    assert place == PlatformDirectory(deep.root).socket("control")
    assert len(str(place)) < 108
    with deep.held():
        assert place.parent.stat().st_mode & 0o777 == 0o700
        place.touch()
    assert not place.parent.exists()
    place.parent.mkdir()
    owner = os.getuid()
    monkeypatch.setattr(Path, "stat", lambda _, **__: os.stat_result((0o40700, 0, 0, 1, owner + 1, 0, 0, 0, 0, 0)))
    with pytest.raises(PlatformError, match="belongs to another user"):
        deep.socket("control")
    monkeypatch.undo()
    place.parent.rmdir()


def test_the_directories_of_a_first_start_are_closed_to_others(tmp_path: Path) -> None:
    """The platform's directory and those that are made on the way to it, independent of the umask."""
    before = os.umask(0)
    try:
        PlatformDirectory(tmp_path / "state/platform").check()
    finally:
        os.umask(before)
    assert {place.stat().st_mode & 0o777 for place in (tmp_path / "state", tmp_path / "state/platform")} == {0o700}


async def test_faults_of_triggers_are_reported_before_anything_starts(compose: Callable[..., Platform]) -> None:
    """`up` refuses a Trigger that the webhook would refuse, and a reference to a missing object."""
    trigger = """
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: t}
spec: {broker: default, filters: [{cesql: "type = 'a'"}], subscriber: {uri: "http://x.example"}}
"""
    with pytest.raises(ManifestError, match=r"Trigger t: spec.filters\[0\].cesql: is not understood here; use exact"):
        compose("spec: {}\n", f"spec: {{}}\n{trigger}")
    with pytest.raises(ManifestError, match="there is no Broker default in default"):
        compose("spec: {}\n", "spec: {}\n" + trigger.replace("cesql: \"type = 'a'\"", "exact: {type: a}"))


async def test_without_a_broker_events_are_refused(compose: Callable[..., Platform]) -> None:
    """The verb `events` fails without a Broker, and while the broker restarts."""
    platform = compose(direct=True)
    ask = up._handlers(platform, asyncio.Event())["events"]
    assert platform.broker_urls() == {}
    with pytest.raises(RefusedError, match="the manifests hold no Broker"):
        await ask({"verb": "events"})
    platform.brokers = ["default/default"]
    with pytest.raises(RefusedError, match="the broker is not running"):
        await ask({"verb": "events"})


async def test_the_broker_is_not_a_service_of_the_manifests(compose: Callable[..., Platform]) -> None:
    """The broker is not listed and cannot be updated."""
    platform = compose("spec: {}\n", "spec: {}\n---\n" + (SAMPLE / "events.yaml").read_text(), direct=True)
    assert [service.name for service in platform.described()] == ["front", "back"]
    assert list(platform.broker_urls()) == ["default/default"]
    with pytest.raises(RefusedError, match="no such Service"):
        platform.apply(platform.services["broker-ingress"].body)
