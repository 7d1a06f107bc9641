"""Models in an object store: publications, and what an instance does about each fault."""

import itertools
import signal
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import obstore
import pytest

from chassis.server.service import StartError
from functions.rank_items.settings import Settings
from functions.rank_items.startup import OpenedModel, opened_model
from localkn.processes import free_port
from recrank.artefact import ARRAYS, ITEMS, MANIFEST, ArtefactError, read_artefact, write_artefact
from recrank.bucket import Bucket
from recrank.places import BucketPlace, MissingError, PlaceError, parse_place
from recrank.query import Query
from recrank.sources import opened_source
from recsys import metrics
from recsys.declaration.reader import DEFAULT, parse_declaration
from recsys.declaration.types import Declaration
from recsys.features import UNKNOWN_FEATURES
from tests.object_store import ObjectStore
from tools.bench.batching import make_artefact

pytestmark = pytest.mark.may_block

_PREFIXES = itertools.count()


@pytest.fixture
def place(object_store: ObjectStore) -> BucketPlace:
    """Return a prefix that is new in each test."""
    return BucketPlace("models", f"team/shop-{next(_PREFIXES)}")


def write(folder: Path, *, items: int, declaration: Declaration | None = None) -> Path:
    """Write an artefact with a number of items, from which its version follows."""
    made = make_artefact(items=items, dims=8)
    training: dict[str, Any] = {}
    write_artefact(
        folder,
        name="test",
        arrays=made.arrays,
        items=made.items,
        training=training,
        metrics={},
        declaration=declaration,
    )
    return folder


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return write(tmp_path / "first", items=20)


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return write(tmp_path / "second", items=30)


def version_of(model: Path) -> str:
    return read_artefact(model).manifest.version


def serving(place: BucketPlace, **env: str) -> AbstractAsyncContextManager[OpenedModel]:
    return opened_model(Settings.from_env({"AUTH": "off", "MODEL_PATH": str(place), **env}))


def served(opened: OpenedModel) -> tuple[str, bool]:
    """Return the version in the answers of an instance, and whether the instance says that it is behind."""
    (ranking,) = opened.model.live.rank([Query(UNKNOWN_FEATURES, [], top_k=3)])
    assert ranking.model == opened.model.live.model.identity
    gauges = {each.definition: each.collect().samples for each in opened.instruments()}
    (info,), (behind,) = gauges[metrics.MODEL], gauges[metrics.MODEL_BEHIND]
    assert info.labels["version"] == ranking.model.version
    return ranking.model.version, behind.value == 1.0


def objects_of(store: ObjectStore, place: BucketPlace) -> Path:
    return store.folder / place.bucket / place.prefix


def file_of(store: ObjectStore, place: BucketPlace, name: str) -> Path:
    """Return the file in which the server keeps a file of the current model."""
    _, pointer = Bucket(place).pointer()
    return objects_of(store, place) / "objects" / pointer.files[name]


async def test_an_instance_serves_and_replaces_the_published_model(place, first, second, tmp_path, monkeypatch):
    """A publication replaces the model while the instance serves, and deletes the former copy."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert Bucket(place).publish(first) == place.at(version_of(first))
    async with serving(place) as opened:
        assert served(opened) == (version_of(first), False)
        before = opened.model.live.model
        await opened.model.look()
        assert opened.model.live.model is before
        Bucket(place).publish(second)
        await opened.model.look()
        assert served(opened) == (version_of(second), False)
        (copy,) = tmp_path.glob("recsys-model-*/*")
        assert copy == opened.model.loaded.folder
        assert read_artefact(copy).items == read_artefact(second).items
    assert list(tmp_path.glob("recsys-model-*/")) == []


async def test_an_instance_stays_with_a_version_that_its_place_names(place, first, second):
    """A place with a version is not followed, so a revision keeps its model and a rollback restores both."""
    pinned = Bucket(place).publish(first)
    Bucket(place).publish(second)
    async with serving(pinned) as opened:
        assert (served(opened), opened.model.changes) == ((version_of(first), False), False)


@pytest.mark.parametrize("steps", range(5))
def test_a_publication_that_dies_leaves_the_former_model(place, first, second, *, monkeypatch, steps):
    """However many objects were written, a reader finds the former model complete until the pointer is replaced."""
    Bucket(place).publish(first)
    put, left = obstore.put, iter(range(steps))

    def dying(*arguments: Any) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return put(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(obstore, "put", dying)
        with pytest.raises(KeyboardInterrupt):
            Bucket(place).publish(second)
    with opened_source(place) as source:
        found = source.fetch()
        assert found is not None
        assert version_of(found) == version_of(first)
    Bucket(place).publish(second)
    assert Bucket(place).pointer()[1].version == version_of(second)


async def test_a_killed_publisher_leaves_the_former_model(place, first, second, object_store):
    """A process that is killed between the objects and the pointer changes nothing for an instance."""
    Bucket(place).publish(first)
    program = (
        "import sys, time; from pathlib import Path; from recrank.bucket import Bucket; "
        "from recrank.places import BucketPlace; "
        "Bucket(BucketPlace.parse(sys.argv[1])).upload(Path(sys.argv[2])); print('uploaded', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(place), str(second)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"uploaded\n"
        process.send_signal(signal.SIGKILL)
    async with serving(place) as opened:
        assert served(opened) == (version_of(first), False)


def replace_object(place: BucketPlace, key: str, content: bytes) -> None:
    """Write an object as another client of the store could."""
    Bucket(place)._put(key, content)


def truncate(place: BucketPlace, path: Path) -> None:
    replace_object(place, f"objects/{path.name}", path.read_bytes()[:100])


def flip(place: BucketPlace, path: Path) -> None:
    content = path.read_bytes()
    replace_object(place, f"objects/{path.name}", content[:50] + bytes([content[50] ^ 1]) + content[51:])


def delete(place: BucketPlace, path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        (ARRAYS, truncate, "100 bytes of"),
        (MANIFEST, flip, "do not have this SHA-256"),
        (ITEMS, delete, "is missing"),
    ],
)
async def test_a_damaged_object_is_refused(place, first, second, *, object_store, caplog, name, damage, reason):
    """An instance keeps its model and says why, downloads the damaged model once, and takes the repaired one over."""
    Bucket(place).publish(first)
    async with serving(place) as opened:
        Bucket(place).publish(second)
        damage(place, file_of(object_store, place, name))
        for _ in range(2):
            await opened.model.look()
            assert served(opened) == (version_of(first), True)
        (logged,) = [record for record in caplog.records if record.message == "model_refused"]
        assert reason in logged.__dict__["reason"]
        assert logged.__dict__["reason"].endswith("publish the model again")
        with pytest.raises(StartError, match=reason):
            async with serving(place):
                pass
        # The time in the stamp has whole seconds.
        stamp = Bucket(place).pointer()[0]
        while Bucket(place).pointer()[0] == stamp:
            Bucket(place).publish(second)
        await opened.model.look()
        assert served(opened) == (version_of(second), False)


async def test_an_answer_that_breaks_off_is_an_outage(place, first, second, object_store):
    """If the store sends fewer bytes than it announced, the instance keeps its model and tries again."""
    Bucket(place).publish(first)
    async with serving(place) as opened:
        Bucket(place).publish(second)
        path = file_of(object_store, place, ARRAYS)
        whole = path.read_bytes()
        path.write_bytes(whole[:100])
        await opened.model.look()
        assert served(opened) == (version_of(first), True)
        path.write_bytes(whole)
        await opened.model.look()
        assert served(opened) == (version_of(second), False)


@pytest.mark.parametrize("content", [
    b"", b"{", b'{"version": "x", "files": {}}', b'{"version": "x", "files": {"../../manifest.json": "' + b"0" * 64 + b'"}}',
    b" " * 70_000,
])  # fmt: skip
def test_a_damaged_pointer_is_refused(place, first, content):
    """An instance refuses a pointer that is malformed or names files that do not belong to an artefact."""
    Bucket(place).publish(first)
    replace_object(place, "current.json", content)
    with (
        opened_source(place) as source,
        pytest.raises(ArtefactError, match=r"current\.json: .*publish the model again"),
    ):
        source.fetch()


async def test_another_declaration_needs_new_instances(place, first, tmp_path, caplog):
    """A model whose declaration differs is refused in place, because callers rely on the declared values."""
    Bucket(place).publish(first)
    declaration = parse_declaration(DEFAULT.read_text("utf-8").replace("weight = 5", "weight = 7"), "test")
    other = write(tmp_path / "other", items=30, declaration=declaration)
    async with serving(place) as opened:
        Bucket(place).publish(other)
        await opened.model.look()
        assert served(opened) == (version_of(first), True)
        (logged,) = [record for record in caplog.records if record.message == "model_refused"]
        assert logged.__dict__["reason"].endswith("follows another declaration; start new instances to serve it")
    async with serving(place) as opened:
        assert served(opened) == (version_of(other), False)


async def test_an_outage_keeps_the_model(place, first, second, *, tmp_path, monkeypatch, caplog):
    """While the store is down the instance serves and says so once; afterwards it takes over what was published."""
    store = ObjectStore(tmp_path / "buckets", free_port())
    (store.folder / place.bucket).mkdir(parents=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.env["AWS_ENDPOINT_URL"])
    with store.serving():
        Bucket(place).publish(first)
        Bucket(place).upload(second)
        opening = serving(place)
        opened = await opening.__aenter__()
    for _ in range(2):
        await opened.model.look()
        assert served(opened) == (version_of(first), True)
    (logged,) = [record for record in caplog.records if record.message == "model_place_unavailable"]
    assert "the object store cannot be used" in logged.__dict__["reason"]
    with pytest.raises(StartError, match="the object store cannot be used"):
        async with serving(place):
            pass
    with store.serving():
        await opened.model.look()
        assert served(opened) == (version_of(first), False)
        Bucket(place).publish(second)
        await opened.model.look()
        assert served(opened) == (version_of(second), False)
    await opening.__aexit__(None, None, None)


async def test_faults_of_the_place_name_the_reason(place, first, monkeypatch):
    """A start and a publication say which bucket, object or credential is wrong."""

    async def faults(place: BucketPlace) -> tuple[str, str]:
        with pytest.raises(StartError) as start:
            async with serving(place):
                pass
        with pytest.raises(PlaceError) as publication:
            Bucket(place).publish(first)
        return str(start.value), str(publication.value)

    with pytest.raises(MissingError, match=r"current\.json: no such object; publish a model"):
        Bucket(place).pointer()
    assert set(await faults(BucketPlace("nothing-here", "x"))) == {
        "s3://nothing-here: no such bucket; create it, or correct the name"
    }
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    for fault in await faults(place):
        assert "access denied (SignatureDoesNotMatch); check AWS_ACCESS_KEY_ID" in fault
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example")
    for fault in await faults(place):
        assert fault == "AWS_ENDPOINT_URL http://store.example: plain HTTP; use https://, or set AWS_ALLOW_HTTP=true"


def test_copies_of_killed_processes_are_deleted(place, first, tmp_path, monkeypatch):
    """A source deletes the folders of processes that were killed, and none of a running process."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Bucket(place).publish(first)
    (tmp_path / "recsys-model-left").mkdir()
    with opened_source(place) as running:
        kept = running.fetch()
        with opened_source(place):
            assert kept is not None
            assert kept.exists()
            assert not (tmp_path / "recsys-model-left").exists()


@pytest.mark.parametrize(("text", "reason"), [
    ("s3://", "names no bucket"), ("s3://models", "has no prefix"), ("s3://models/a//b", "an empty part"),
    ("s3://models/../x", "empty part"), ("s3://models/x?version=1", "not 12 hexadecimal digits"), ("s3://UPPER/x", "no bucket"),
    ("s3://models/x?other=1", "not 12 hexadecimal digits"), ("https://models/x", "names no bucket"), ("s3://[/x", "is not a URL"),
])  # fmt: skip
def test_a_wrong_place_is_a_fault_of_the_settings(text, reason):
    """The message names the text and the two forms that are accepted."""
    with pytest.raises(PlaceError, match=reason) as raised:
        parse_place(text)
    assert str(raised.value).endswith("use s3://BUCKET/PREFIX or s3://BUCKET/PREFIX?version=VERSION")


def test_places_are_written_as_they_are_read():
    """A place with and without a version, and a folder."""
    for text in ("s3://models/team/shop", "s3://models/shop?version=0123456789ab", "/models"):
        assert str(parse_place(text)) == text
