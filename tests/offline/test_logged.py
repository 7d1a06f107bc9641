"""`./run.sh evaluate --logged`: a log of exploring lists judges the model that showed them, and another one."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import pytest

from offline.evaluation.contenders import load_model
from offline.evaluation.logged import evaluate_logged, number_items, rank_again, read_file
from offline.reading.lines import DataError
from offline.state import Current, StateDirectory
from offline.training import train
from recrank.model import Query, Ranking, RankingModel
from recstore.exposures.records import Action, Exposure, ExposureOutcome, ItemOutcome, ShownItem
from recstore.exposures.urls import open_exposures
from recsys.contracts.wire import Exploration
from recsys.features import compute_features
from recsys.records import UserRecord, imported
from tests.offline.tastes import DAY_US, KINDS, OF_A_KIND, fill, make_records, put_serving
from tools.cli.verbs import main

pytestmark = pytest.mark.may_block

LENGTH, REPEATS = 4, 12
NOW_US = 9 * DAY_US
IMPOSSIBLE = msgspec.json.encode(ExposureOutcome("x", "zoe", 1, None, None, None, None, (ItemOutcome("a", 1, 0.0),)))
ATTENTION = (0.6, 0.5, 0.4, 0.3)


def likes(record: UserRecord, item_id: str) -> bool:
    """Tell whether the planted taste of the user is the kind of the item."""
    return int(item_id[1:]) // 20 == int(record.user_id[1:]) % KINDS


def show(model: RankingModel, records: Sequence[UserRecord]) -> list[ExposureOutcome]:
    """Return what users saw and did: each list explores, and a user clicks items of the kind that the user likes."""
    rng, shown = np.random.default_rng(0), []
    for number in range(REPEATS):
        queries = [
            Query(
                compute_features(each),
                [item.item_id for item in each.history],
                LENGTH,
                as_of_us=each.as_of_us,
                exploration=Exploration(share=1.0, temperature=1.0),
                seed=f"{number}/{each.user_id}",
            )
            for each in records
        ]
        for record, ranking in zip(records, model.rank(queries), strict=True):
            items = tuple(
                ItemOutcome(
                    item_id,
                    place + 1,
                    propensity,
                    ("click",) if likes(record, item_id) and rng.random() < ATTENTION[place] else (),
                )
                for place, (item_id, propensity) in enumerate(zip(ranking.item_ids, ranking.propensities, strict=True))
            )
            identity = model.identity
            exposure_id = f"{number}/{record.user_id}"
            shown.append(
                ExposureOutcome(
                    exposure_id, record.user_id, NOW_US + number, identity.name, identity.version, None, None, items
                )
            )
    return shown


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a state directory with a model, a store that holds a log, and the same log as a file."""
    folder = tmp_path_factory.mktemp("state")
    records = make_records(days=8)
    directory = put_serving(folder, records)
    url = fill(folder / "stores/1-test.db", records)
    with directory.locked():
        directory.advance(Current("stores/1-test.db", directory.require_current().model, "test"))
    shown = show(load_model(directory.model_path(directory.require_current())), records)
    (folder / "log.jsonl").write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in shown))
    asyncio.run(note(url, shown))
    return folder


async def note(url: str, shown: Sequence[ExposureOutcome]) -> None:
    entries: list[Exposure | Action] = []
    for each in shown:
        items = tuple(ShownItem(item.item_id, item.position, item.propensity) for item in each.items)
        entries.append(Exposure(each.exposure_id, each.user_id, each.time_us, items, each.model, each.version))
        entries += [
            Action(f"{each.exposure_id}/{item.item_id}", each.user_id, each.time_us + 1, "click", item.item_id,
                   each.exposure_id)
            for item in each.items
            if item.outcomes
        ]  # fmt: skip
    async with aclosing(open_exposures(url, retention_s=10**12)) as log:
        await log.note(entries)


def test_the_serving_model_is_judged_by_its_own_lists(state):
    """Each list without exploration is estimated: the truth lies in the intervals, and the log supports the lists."""
    records = make_records(days=8)
    model = load_model(StateDirectory(state).model_path(StateDirectory(state).require_current()))
    exposures = read_file(state / "log.jsonl")
    plain = rank_again(model, exposures, {each.user_id: each for each in records})
    by_user = {each.user_id: each for each in records}
    truth = np.mean(
        [
            sum(chance * likes(by_user[each.user_id], item) for chance, item in zip(ATTENTION, own, strict=True))
            for each, own in zip(exposures, plain, strict=True)
        ]
    )
    found = evaluate_logged(str(state / "log.jsonl"), state_dir=state)
    assert found.found.support == pytest.approx(1.0, abs=0.1)
    assert not found.warnings()
    for each in found.found.estimates[1:]:
        assert each.value.low < truth < each.value.high
    # The lists that were shown have items that exploration drew, so they did worse.
    assert found.found.estimates[2].lift.value > 0


def test_the_store_and_the_file_give_the_same_report(state):
    """The log of the current store, of the store by URL and of a file are the same."""
    reports = [
        evaluate_logged(source, kinds=["click"], state_dir=state).to_json()
        for source in ("current", f"sqlite:///{state}/stores/1-test.db", str(state / "log.jsonl"))
    ]
    assert reports[0] == reports[1] == reports[2]


def test_a_worse_candidate_is_estimated_below(state, tmp_path, capsys):
    """A model of users without tastes gets a lower estimate than the log; actions of another kind do not count."""
    rng = np.random.default_rng(0)
    tasteless = [
        msgspec.structs.replace(
            each,
            history=[
                msgspec.structs.replace(item, item_id=f"i{number:03}")
                for item, number in zip(each.history, rng.permutation(KINDS * OF_A_KIND), strict=False)
            ],
        )
        for each in make_records(days=8)
    ]
    train(tasteless, items={}, folder=tmp_path / "worse", dataset="test")
    words = ["evaluate", "--logged", str(state / "log.jsonl"), "--state-dir", str(state), "--json"]
    assert main([*words, "--candidate", str(tmp_path / "worse"), "--report", str(tmp_path)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "logged.json").read_text()) == report
    worse = {each["name"]: each for each in report["found"]["estimates"]}
    assert worse["ips"]["lift"]["high"] < 0
    assert main([*words, "--kind", "purchase"]) == 0
    assert json.loads(capsys.readouterr().out)["found"]["estimates"][0]["value"]["value"] == 0


def test_a_log_without_exploration_is_called_too_thin(state):
    """Another model's lists have little support in a deterministic log, and the report says so."""
    exposures = [
        msgspec.structs.replace(each, items=tuple(msgspec.structs.replace(item, propensity=1.0) for item in each.items))
        for each in read_file(state / "log.jsonl")[:300]
    ]
    path = state / "plain.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in exposures))
    found = evaluate_logged(str(path), state_dir=state)
    assert found.found.support < 0.8
    assert "EXPLORATION" in found.to_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "fewer than two users"),
        (b"{}\n", "line 1: not a list with its outcomes"),
        (IMPOSSIBLE, "a propensity is not above 0"),
    ],
)
def test_a_faulty_file_is_refused(state, tmp_path, content, said):
    """A file without lists, a line of another form and an impossible propensity are named."""
    (tmp_path / "log.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=said):
        evaluate_logged(str(tmp_path / "log.jsonl"), state_dir=state)
    with pytest.raises(DataError, match="cannot be read"):
        evaluate_logged(str(tmp_path / "none.jsonl"), state_dir=state)


def test_the_past_is_ranked_with_the_history_of_the_past(state):
    """Interactions after a list do not count when the list is ranked again."""
    (record,) = (each for each in make_records(days=8) if each.user_id == "u000")
    model = load_model(StateDirectory(state).model_path(StateDirectory(state).require_current()))
    (first, *_) = read_file(state / "log.jsonl")
    early = msgspec.structs.replace(first, time_us=DAY_US)
    cut = msgspec.structs.replace(record, history=[item for item in record.history if item.time_us < DAY_US])
    assert rank_again(model, [early], {"u000": record}) == rank_again(model, [first], {"u000": cut})
    assert rank_again(model, [early], {"u000": record}) != rank_again(model, [first], {"u000": record})
    assert len(rank_again(model, [first], {})[0]) == LENGTH


def test_the_candidate_ranks_as_at_the_time_of_the_list():
    """It gets the time of the list, not that of the evaluation, and the attributes of the user."""
    asked: list[Query] = []

    class Model:
        def rank(self, queries: Sequence[Query]) -> list[Ranking]:
            asked.extend(queries)
            return [Ranking([], []) for _ in queries]

    shown = ExposureOutcome("x", "ann", 5, None, None, None, None, (ItemOutcome("a", 1, 0.5),))
    ann = UserRecord("ann", "unknown", attributes=imported({"city": ["Rome"]}))
    rank_again(cast("RankingModel", Model()), [shown, msgspec.structs.replace(shown, user_id="zoe")], {"ann": ann})
    assert [(each.at_us, each.user_attributes) for each in asked] == [(5, {"city": ["Rome"]}), (5, {})]


def test_lists_of_different_lengths_are_padded():
    """Positions beyond a list have no item and no reward."""
    items = (ItemOutcome("a", 1, 0.5, ("view",)), ItemOutcome("b", 2, 0.25, ("view", "click")))
    long = ExposureOutcome("x", "zoe", 1, None, None, None, None, items)
    short = ExposureOutcome("y", "ann", 1, None, None, None, None, items[:1])
    shown, ranked = number_items([long, short], [["b", "c"], []], kinds=["click"])
    assert shown.items.tolist() == [[0, 1], [0, -1]]
    assert shown.rewards.tolist() == [[0, 1], [0, 0]]
    assert shown.propensities.tolist() == [[0.5, 0.25], [0.5, 1.0]]
    assert ranked.tolist() == [[1, 2], [-1, -1]]
