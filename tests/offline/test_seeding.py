"""Seeding a cluster: the store is filled once, the model goes into a ConfigMap."""

import asyncio
import os
import signal
import ssl
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from offline.demo import make_demo
from offline.publishing import LIMIT_BYTES, Cluster, PublishError, publish
from offline.seeding import keep_filled, main, seed
from offline.training import train
from recsys.ranking.artefact import read_artefact
from recsys.stores.memory import MemoryStore
from recsys.stores.port import Interaction, StoreUnavailableError
from tests.offline.api_server import ApiServer, api_server


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with api_server() as server:
        yield server


def test_the_demo_s_model_fits_a_config_map_and_comes_back(api, tmp_path):
    """What pods mount is, byte for byte, the artefact; publishing once more exchanges it."""
    demo, folder, mounted = make_demo(), tmp_path / "made", tmp_path / "mounted"
    folder.mkdir()
    mounted.mkdir()
    manifest = train(demo.records, items={item.item_id: item for item in demo.items}, folder=folder, dataset="demo")
    api.maps["model"] = {"binaryData": {"old": ""}}
    publish(folder, name="model", cluster=api.cluster)
    data = api.maps["model"]["binaryData"]
    assert sum(map(len, data.values())) < LIMIT_BYTES
    for name, content in data.items():
        (mounted / name).write_bytes(b64decode(content))
    assert read_artefact(mounted).manifest == manifest
    assert api.tokens == {"Bearer token"}


def test_what_does_not_fit_is_said_before_it_is_sent(api, tmp_path):
    """A ConfigMap holds 1 MiB."""
    (tmp_path / "large").write_bytes(bytes(LIMIT_BYTES))
    with pytest.raises(PublishError, match="do not fit"):
        publish(tmp_path, name="model", cluster=api.cluster)
    assert api.maps == {}


def test_a_refusal_is_handed_on(api, tmp_path):
    """With the status and the words of the API server."""
    api.refuses = True
    (tmp_path / "small").write_bytes(b"x")
    with pytest.raises(PublishError, match=r"403\): said by the server"):
        publish(tmp_path, name="model", cluster=api.cluster)


def test_an_api_server_that_is_away_is_one_error(tmp_path, free_port):
    """Whatever the network says."""
    with pytest.raises(PublishError, match="did not answer"):
        publish(tmp_path, name="model", cluster=Cluster(f"127.0.0.1:{free_port}", "default", "token", None))


def test_outside_of_a_pod_there_is_no_token(tmp_path):
    """The reason names the file that is missing."""
    with pytest.raises(PublishError, match="no ServiceAccount token"):
        Cluster.own(tmp_path)


def test_a_pod_trusts_its_cluster_s_authority(tmp_path):
    """Also one whose certificates lack what Python 3.13 began to insist on."""

    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    (tmp_path / "namespace").write_text("recsys\n")
    (tmp_path / "token").write_text("secret\n")
    own = Cluster.own(tmp_path)
    assert (own.namespace, own.token, own.address) == ("recsys", "secret", "kubernetes.default.svc")
    assert own.trust
    assert own.trust.verify_mode is ssl.CERT_REQUIRED
    assert not own.trust.verify_flags & ssl.VERIFY_X509_STRICT


class Away(MemoryStore):
    """Unavailable at first; opened again and again, as a server's store is."""

    times = 1

    async def aclose(self) -> None:
        pass

    async def population(self) -> Any:
        self.times -= 1
        if self.times >= 0:
            raise StoreUnavailableError("it starts")
        return await super().population()


async def test_a_store_is_filled_once_even_if_events_were_quicker(monkeypatch):
    """Users that events made are no reason to leave the demo out; its own users are one not to bring it again."""
    monkeypatch.setattr("offline.seeding._RETRY_S", 0)
    store, demo = Away(), make_demo()
    await store.apply([Interaction("test", "1", "user_1", "view", 1, "item_1")])
    assert await seed(lambda: store, demo, wait_s=10) == "1000 users are in the feature store"
    assert await store.population() is not None
    assert await seed(lambda: store, demo, wait_s=0) == "the feature store is filled already"


class Replaced:
    """A store that is lost with its content, and another one in its place; the first calls find it away."""

    def __init__(self) -> None:
        self.store: MemoryStore = Away()

    def lose(self) -> None:
        self.store = Away()


async def test_a_store_that_lost_its_users_is_filled_again(capsys):
    """Whoever stays looks again and again, is not put off by a store that is away, and ends when told."""
    place = Replaced()
    keeping = asyncio.create_task(keep_filled(lambda: place.store, make_demo(), every_s=0.01))

    async def filled() -> bool:
        return await MemoryStore.population(place.store) is not None

    async with asyncio.timeout(10):
        for _ in range(2):
            while not await filled():
                await asyncio.sleep(0.01)
            place.lose()
        os.kill(os.getpid(), signal.SIGTERM)
        await keeping
    assert capsys.readouterr().out.count("1000 users are in the feature store") >= 2


async def test_a_store_that_stays_away_is_an_error():
    """The Job is tried again by the cluster."""
    with pytest.raises(StoreUnavailableError):
        await seed(Away, make_demo(), wait_s=0)


async def test_every_try_has_a_store_of_its_own(monkeypatch):
    """A try closes the store that it could not fill, and a store that was closed does not open again."""
    monkeypatch.setattr("offline.seeding._RETRY_S", 0)

    class Unavailable(MemoryStore):
        async def population(self) -> Any:
            raise StoreUnavailableError("it starts")

    stores = iter([Unavailable(), Unavailable(), MemoryStore()])
    assert await seed(lambda: next(stores), make_demo(), wait_s=10) == "1000 users are in the feature store"


def test_the_command_says_what_is_missing(capsys, tmp_path):
    """One line, and exit status 1: no store named; no cluster to publish in."""
    assert main([], env={}) == 1
    assert main(["--config-map", "model"], env={"FEATURE_STORE_URL": f"sqlite:///{tmp_path}/store.db"}) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[0] == "FEATURE_STORE_URL is not set; name the store to fill"
    assert "no ServiceAccount token" in said.err.splitlines()[1]
    assert "1000 users" in said.out
    assert Path(tmp_path / "store.db").exists()
