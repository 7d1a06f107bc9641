"""Seeding a cluster: filling the store once and publishing the model in a ConfigMap."""

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

from offline.publication import LIMIT_BYTES, ClusterAccess, PublishError, publish
from offline.seed import keep_filled, main, seed
from offline.training import train
from recrank.artefact import read_artefact
from recstore.memory import MemoryStore
from recstore.port import StoreUnavailableError
from recsys.records import Interaction
from tests.offline.api_server import ApiServer


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


def test_the_demo_model_is_published_in_a_config_map(api, tmp_path, demo):
    """The files that pods mount equal the artefact, and publishing again replaces them."""
    folder, mounted = tmp_path / "made", tmp_path / "mounted"
    folder.mkdir()
    mounted.mkdir()
    manifest = train(demo.records, items={item.item_id: item for item in demo.items}, folder=folder, dataset="demo")
    api.maps["model"] = {"binaryData": {"old": ""}}
    publish(folder, name="model", cluster=api.cluster)
    data = api.maps["model"]["binaryData"]
    assert sum(map(len, data.values())) < LIMIT_BYTES
    for name, content in data.items():
        (mounted / name).write_bytes(b64decode(content))
    assert read_artefact(mounted).manifest == read_artefact(folder).manifest
    assert read_artefact(mounted).manifest.version == manifest.version
    assert api.tokens == {"Bearer token"}


def test_a_model_that_does_not_fit_is_refused(api, tmp_path):
    """A model over the 1 MiB of a ConfigMap is an error before anything is sent."""
    (tmp_path / "large").write_bytes(bytes(LIMIT_BYTES))
    with pytest.raises(PublishError, match="do not fit"):
        publish(tmp_path, name="model", cluster=api.cluster)
    assert api.maps == {}


def test_an_error_of_the_api_server_is_passed_on(api, tmp_path):
    """The error contains the status and the message of the API server."""
    api.refuses = True
    (tmp_path / "small").write_bytes(b"x")
    with pytest.raises(PublishError, match=r"403\): said by the server"):
        publish(tmp_path, name="model", cluster=api.cluster)


def test_an_unreachable_api_server_is_an_error(tmp_path, free_port):
    """A network error becomes PublishError."""
    with pytest.raises(PublishError, match="did not answer"):
        publish(tmp_path, name="model", cluster=ClusterAccess(f"127.0.0.1:{free_port}", "default", "token", None))


def test_a_missing_token_is_an_error(tmp_path):
    """Outside of a pod the error names the missing ServiceAccount token."""
    with pytest.raises(PublishError, match="no ServiceAccount token"):
        ClusterAccess.own(tmp_path)


def test_a_pod_trusts_its_clusters_authority(tmp_path):
    """The certificate is checked, but not as strictly as Python 3.13 does by default."""

    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    (tmp_path / "namespace").write_text("recsys\n")
    (tmp_path / "token").write_text("secret\n")
    own = ClusterAccess.own(tmp_path)
    assert (own.namespace, own.token, own.address) == ("recsys", "secret", "kubernetes.default.svc")
    assert own.trust
    assert own.trust.verify_mode is ssl.CERT_REQUIRED
    assert not own.trust.verify_flags & ssl.VERIFY_X509_STRICT


class RestartingStore(MemoryStore):
    """A store that is unavailable at first and stays usable after it is closed."""

    times = 1

    async def aclose(self) -> None:
        pass

    async def population(self) -> Any:
        self.times -= 1
        if self.times >= 0:
            raise StoreUnavailableError("it starts")
        return await super().population()


async def test_a_store_is_filled_once_even_after_events(monkeypatch, demo):
    """Users created by events do not prevent the import of the demo data; imported users do."""
    monkeypatch.setattr("offline.seed._RETRY_S", 0)
    store = RestartingStore()
    await store.apply([Interaction("test", "1", "user_1", "view", 1, "item_1")])
    assert await seed(lambda: store, demo, wait_s=10) == "users in the feature store: 1000"
    assert await store.population() is not None
    assert await seed(lambda: store, demo, wait_s=0) == "the feature store is filled already"


class ReplaceableStore:
    """A store that can lose its content; its first calls fail because it is restarting."""

    def __init__(self) -> None:
        self.store: MemoryStore = RestartingStore()

    def lose(self) -> None:
        self.store = RestartingStore()


async def test_a_store_that_lost_its_users_is_filled_again(capsys, demo):
    """The process checks the store periodically, tolerates an outage, and ends at SIGTERM."""
    place = ReplaceableStore()
    keeping = asyncio.create_task(keep_filled(lambda: place.store, demo, every_s=0.01))

    async def filled() -> bool:
        return await MemoryStore.population(place.store) is not None

    async with asyncio.timeout(10):
        for _ in range(2):
            while not await filled():
                await asyncio.sleep(0.01)
            place.lose()
        os.kill(os.getpid(), signal.SIGTERM)
        await keeping
    assert capsys.readouterr().out.count("users in the feature store: 1000") >= 2


async def test_an_unavailable_store_is_an_error(demo):
    """Seeding fails, and the cluster retries the Job."""
    with pytest.raises(StoreUnavailableError):
        await seed(RestartingStore, demo, wait_s=0)


async def test_every_attempt_opens_a_new_store(monkeypatch, demo):
    """An attempt closes its store, and a closed store does not reopen."""
    monkeypatch.setattr("offline.seed._RETRY_S", 0)

    class Unavailable(MemoryStore):
        async def population(self) -> Any:
            raise StoreUnavailableError("it starts")

    stores = iter([Unavailable(), Unavailable(), MemoryStore()])
    assert await seed(lambda: next(stores), demo, wait_s=10) == "users in the feature store: 1000"


def test_the_command_reports_errors(capsys, tmp_path):
    """A missing store and a missing cluster each print one line and exit with 1."""
    assert main([], env={}) == 1
    assert main(["--config-map", "model"], env={"FEATURE_STORE_URL": f"sqlite:///{tmp_path}/store.db"}) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[0] == "FEATURE_STORE_URL is not set; name the store to fill"
    assert "no ServiceAccount token" in said.err.splitlines()[1]
    assert "users in the feature store: 1000" in said.out
    assert Path(tmp_path / "store.db").exists()
