"""Functions and declarations: functions agree with their data, follow the rules, and keep avoided items out."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from chassis.environment import SettingsError
from chassis.server.service import StartError
from chassis.wire.problems import InvalidRequestError
from functions.extract_features.handler import ExtractFeatures
from functions.extract_features.settings import Settings
from functions.extract_features.startup import follow_store
from functions.rank_items.model_loader import LoadedModel, load_model
from recrank.artefact import MANIFEST, ArtefactError, read_artefact, write_artefact
from recrank.model import RankingModel
from recstore.memory import MemoryStore
from recstore.sqlite import SqliteStore
from recsys.contracts.wire import MAX_HISTORY
from recsys.declaration.reader import DEFAULT, DeclarationError, default_declaration, parse_declaration
from recsys.declaration.types import Declaration, DeclaredRules
from recsys.features import UNKNOWN_FEATURES
from recsys.records import HistoryItem, UserRecord
from tests.functions.harness import DOWN, FEATURES, POPULAR, RANKED, Harness, make_call, rank_request, ranking_by
from tests.ranking.test_filters import with_kinds
from tools.bench.batching import make_artefact
from tools.store import copy_store

pytestmark = pytest.mark.may_block

OTHER = DEFAULT.read_text("utf-8").replace("weight = 5", "weight = 7")


@pytest.fixture
def other() -> Declaration:
    return parse_declaration(OTHER, "other.toml")


def write(folder: Path, declaration: Declaration | None) -> Path:
    made = with_kinds(make_artefact(items=500, dims=16))
    write_artefact(
        folder, name="bench", arrays=made.arrays, items=made.items, training={}, metrics={}, declaration=declaration
    )
    return folder


def load(folder: Path, declaration: Declaration | None = None) -> LoadedModel:
    with ThreadPoolExecutor(1) as pool:
        return load_model(folder, workers=1, pool=pool, declaration=declaration)


async def rank(model: RankingModel, **fields: object) -> bytes:
    with ranking_by(model) as handler:
        return (await handler(make_call(rank_request(**fields)))).body


async def test_an_artefact_answers_the_same_bytes_with_the_demo_s_declaration_and_without(tmp_path):
    """The default is what was served before declarations: the same artefact gives the same bytes and version."""
    without, with_one = write(tmp_path / "without", None), write(tmp_path / "with", default_declaration())
    document = json.loads((without / MANIFEST).read_bytes())
    del document["declaration"]  # as in an artefact of an earlier version
    (without / MANIFEST).write_text(json.dumps(document), "utf-8")
    for fields in ({}, {"top_k": 50, "history": ["item_7"]}, {"diversity": 0.3}, {"exclude": ["item_1", "item_2"]}):
        before = await rank(load(without).model, **fields)
        assert before == await rank(load(with_one).model, **fields)


@pytest.mark.parametrize("declaration", [None, default_declaration()])
def test_a_model_of_another_declaration_is_not_served(tmp_path, declaration, other):
    """The start ends with the field that differs."""
    folder = write(tmp_path / "model", declaration)
    with pytest.raises(StartError, match="events.purchase.weight is 5.0 in the model and 7.0 in RECSYS_DECLARATION"):
        load(folder, other)
    assert load(folder, default_declaration()).rules == DeclaredRules()


def test_the_rules_of_the_setting_replace_those_of_the_model(tmp_path):
    """Rules need no training, so an operator changes them by the setting alone."""
    capped = parse_declaration(DEFAULT.read_text("utf-8") + "[rules]\ncaps = { category = 2 }\n", "a.toml")
    folder = write(tmp_path / "model", capped)
    assert load(folder).rules.caps == {"category": 2}
    assert load(folder, default_declaration()).rules.caps == {}


def test_a_declaration_that_was_changed_in_the_manifest_is_refused(tmp_path):
    """The digest belongs to the content."""
    folder = write(tmp_path / "model", default_declaration())
    text = (folder / MANIFEST).read_text("utf-8")
    (folder / MANIFEST).write_text(text.replace('"weight": 5', '"weight": 6'), "utf-8")
    with pytest.raises(ArtefactError, match="the declaration does not have its digest"):
        read_artefact(folder)


async def test_a_store_of_another_declaration_is_not_served(other):
    """An empty store takes the declaration of the setting. A filled one must agree with it."""
    store = MemoryStore()
    assert await follow_store(store, None) == default_declaration()
    assert await follow_store(store, other) == other
    await store.replace([], population=UNKNOWN_FEATURES, declaration=other)
    assert await follow_store(store, None) == other
    with pytest.raises(DeclarationError, match="events.purchase.weight is 7.0 in the feature store and 5.0 in"):
        await follow_store(store, default_declaration())


def test_a_faulty_file_is_a_fault_of_the_settings(tmp_path):
    """The function does not start, and lists every fault of the file."""
    path = tmp_path / "faulty.toml"
    path.write_text("[events.view]\nweight = 0\n[colours]\n", "utf-8")
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"AUTH": "off", "FEATURE_STORE_URL": "memory:", "RECSYS_DECLARATION": str(path)})
    (fault,) = caught.value.faults
    assert fault.startswith("RECSYS_DECLARATION: ")
    assert fault.endswith(f"\n{path}:3: colours is not a known field")
    assert f"{path}:2: events.view.weight must not be 0" in fault


async def test_a_copy_of_a_store_follows_the_same_declaration(tmp_path, other):
    """The weights in the records belong to the declaration."""
    urls = [f"sqlite:///{tmp_path / name}" for name in ("from.db", "to.db")]
    async with aclosing(SqliteStore(tmp_path / "from.db", create=True)) as store:
        assert await store.declaration() is None
        await store.replace([UserRecord("ann", "55+")], population=UNKNOWN_FEATURES, declaration=other)
    await copy_store(*urls)
    async with aclosing(SqliteStore(tmp_path / "to.db")) as store:
        assert await store.declaration() == other


async def test_extract_features_names_avoided_items_and_is_silent_without_any():
    """The answer for a user without negative events has the fields of before."""
    store = MemoryStore()
    liked, disliked = HistoryItem("a", 1.0, 2), HistoryItem("b", -1.0, 1)
    records = [UserRecord("ann", "55+", history=[liked], avoided=[disliked]), UserRecord("bob", "55+", history=[liked])]
    await store.replace(records, population=UNKNOWN_FEATURES)
    handler = ExtractFeatures(store, population=UNKNOWN_FEATURES, history_limit=10)
    ann, bob = [msgspec.json.decode((await handler(make_call({"user_id": user}))).body) for user in ("ann", "bob")]
    assert (ann["history"], ann["avoided"]) == (["a"], ["b"])
    assert list(bob) == ["user_id", "features", "history", "as_of"]


def test_recommend_keeps_avoided_items_out_of_both_lists():
    """rank_items gets them, and the popular list leaves them out."""
    features = {**FEATURES, "avoided": ["d"]}
    harness = Harness(features, RANKED)
    harness.answer({"user_id": "ann"})
    assert harness.ranking.sent[0]["avoided"] == ["d"]
    popular = Harness(features, DOWN).answer({"user_id": "ann", "top_k": 9})
    assert [each["item_id"] for each in popular["recommendations"]] == ["c", "e", "f"]
    assert len(POPULAR) == 6


async def test_rank_items_leaves_avoided_items_out_and_learns_nothing_from_them(tmp_path):
    """The list is that of a request that excludes the same items."""
    model = load(write(tmp_path / "model", None)).model
    best = [each["item_id"] for each in json.loads(await rank(model))["items"][:2]]
    avoided = await rank(model, avoided=best)
    assert avoided == await rank(model, exclude=best)
    assert not {each["item_id"] for each in json.loads(avoided)["items"]} & set(best)


async def test_many_avoided_items_are_refused_like_a_long_history():
    """The field has the limit of the history."""
    with pytest.raises(InvalidRequestError) as caught:
        await rank(RankingModel(make_artefact(items=50, dims=16)), avoided=["a"] * (MAX_HISTORY + 1))
    assert [fault.path for fault in caught.value.faults] == ["$.avoided"]
