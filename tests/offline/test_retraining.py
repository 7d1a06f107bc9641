"""Retraining on a store: the gate, what is refused, and what a failure leaves."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from offline.content import StoreContent
from offline.evaluation.contenders import load_model
from offline.gate import divide, judge
from offline.matrix import make_ratings
from offline.publication import PublishError, serve
from offline.retraining import RetrainingError, RetrainingRules, main, retrain
from offline.search import Search
from offline.state import StateDirectory, StateError
from offline.training import suggest, train
from recrank.artefact import ARRAYS, ArtefactError, read_artefact
from recrank.model import RankingModel
from recstore.erasures import Erasure, digest_user
from recsys.declaration.reader import default_declaration
from recsys.declaration.types import Declaration, Training
from recsys.records import UserRecord
from tests.offline.api_server import ApiServer
from tests.offline.tastes import DAY_US, USERS, choose_nothing, fill, make_records, put_serving, relabelled


def train_into(folder: Path, records: Sequence[UserRecord]) -> RankingModel:
    train(records, items={}, folder=folder, dataset="test")
    return load_model(folder)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> StateDirectory:
    """A state directory whose model knows the first eight days."""
    return put_serving(tmp_path_factory.mktemp("state"), make_records(days=8))


@pytest.fixture
def suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    choose_nothing(monkeypatch)


@pytest.fixture
def own(state: StateDirectory, tmp_path: Path) -> StateDirectory:
    """Return a copy of the state directory."""
    return StateDirectory(shutil.copytree(state.folder, tmp_path / "own"))


def test_the_evidence_is_newer_than_both_models():
    """Interactions after the serving model's data are halved by time; the challenger knows the older half."""
    records = make_records(days=12)
    evidence = divide(records, after_us=9 * DAY_US - 1)
    newest_known = max(item.time_us for record in evidence.known for item in record.history)
    fresh = [item.time_us for record in records for item in record.history if item.time_us >= 9 * DAY_US]
    assert evidence.fresh == len(fresh)
    assert sum(time_us > newest_known for time_us in fresh) == pytest.approx(len(fresh) / 2, abs=2)
    assert evidence.task.held.nnz == sum(time_us > newest_known for time_us in fresh)


def test_a_model_is_compared_with_itself_without_a_fault(state):
    """Equal models differ by nothing, so the challenger may serve."""
    model = load_model(state.model_path(state.require_current()))
    verdict = judge(model, model, divide(make_records(days=12), after_us=8 * DAY_US + USERS).task)
    assert (verdict.difference.mean, verdict.fault) == (0.0, "")
    assert verdict.challenger == verdict.serving > 0.1


@pytest.mark.parametrize("seed", range(5))
def test_a_model_of_random_labels_may_not_serve(state, tmp_path, seed):
    """A challenger that learned random items finds far less than the serving model."""
    evidence = divide(make_records(days=12), after_us=8 * DAY_US + USERS)
    challenger = train_into(tmp_path, relabelled(evidence.known, seed=seed))
    verdict = judge(challenger, load_model(state.model_path(state.require_current())), evidence.task)
    assert verdict.fault.startswith("it finds ")
    assert verdict.difference.high < 0


def refuse(_: Path) -> None:
    raise AssertionError("nothing may be deployed")


def retrained(
    own: StateDirectory,
    records: Sequence[UserRecord],
    *erased: Erasure,
    deploy: Callable[[Path], None] = refuse,
    say: Callable[[str], None] = print,
    declaration: Declaration | None = None,
    fewest: int = 100,
    kept: int = RetrainingRules.kept,
    **options: Any,
) -> Path | None:
    """Retrain on *records*, and return the model that serves next."""
    content = StoreContent(records, declaration or default_declaration(), erasures=erased)
    return retrain(own, content, deploy=deploy, rules=RetrainingRules(fewest=fewest, kept=kept), say=say, **options)


def test_a_shift_of_tastes_is_served(own):
    """A challenger that has seen the new taste beats the serving model, and its facts name the comparison."""
    served: list[Path] = []
    said: list[str] = []
    model = retrained(own, make_records(days=16, shift_day=8), deploy=served.append, say=said.append)
    assert served == [model]
    assert own.model_path(own.require_current()) == model
    facts = read_artefact(served[0]).manifest.training
    assert facts["gate"]["challenger_ndcg_10"] > facts["gate"]["serving_ndcg_10"]
    assert facts["until_us"] == max(item.time_us for record in make_records(days=16) for item in record.history)
    assert said[0].startswith("NDCG@10 of ")


def test_a_declared_search_precedes_the_choice(own, suggested, monkeypatch):
    """A retraining searches as `train` does with the same declaration, and the manifest tells what it found."""
    declaration = msgspec.structs.replace(default_declaration(), training=Training(search=True))
    monkeypatch.setattr("offline.material.search", lambda records: Search(suggest(make_ratings(records)), [], None))
    records = make_records(days=16, shift_day=8)
    model = retrained(own, records, declaration=declaration, deploy=lambda _: None)
    assert model is not None
    assert "search" in read_artefact(model).manifest.training


def test_little_news_changes_nothing(own):
    """Below the least number of new pairs, nothing is trained."""
    said: list[str] = []
    assert retrained(own, make_records(days=9), fewest=1000, say=said.append) is None
    assert "waiting for 1000" in said[0]
    assert own.require_current().model == "models/1-first"


@pytest.mark.parametrize("records", [[], make_records(days=12)[:40]], ids=["empty", "truncated"])
def test_a_store_that_lost_its_users_keeps_the_serving_model(own, records):
    """Too few users to learn from do not replace the model."""
    with pytest.raises(RetrainingError, match="too little to learn from"):
        retrained(own, records)
    assert own.require_current().model == "models/1-first"


def test_a_challenger_that_fails_the_gate_is_not_deployed(own, suggested, monkeypatch):
    """The serving model stays, and the error says how much less the new one finds."""

    def learn_noise(records: Sequence[UserRecord], **options: Any) -> Any:
        return train(relabelled(records, seed=1), **options)

    monkeypatch.setattr("offline.material.train", learn_noise)
    with pytest.raises(RetrainingError, match="the new model may not serve: it finds .* less "):
        retrained(own, make_records(days=12))
    assert own.require_current().model == "models/1-first"


def test_a_failed_deployment_keeps_the_pointer(own, suggested):
    """If the functions do not serve the new model, the next start serves the former one."""

    def fail(_: Path) -> None:
        raise RetrainingError("rolled back")

    with pytest.raises(RetrainingError, match="rolled back"):
        retrained(own, make_records(days=16, shift_day=8), deploy=fail)
    assert own.require_current().model == "models/1-first"


def test_a_damaged_serving_model_is_an_error(own):
    """A serving model that cannot be read is not replaced silently."""
    path = own.model_path(own.require_current()) / ARRAYS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtefactError):
        retrained(own, make_records(days=12), fewest=1)


def test_the_command_trains_the_first_model_and_then_waits(tmp_path, capsys, suggested):
    """Without a model the command makes one; a second run has nothing new."""
    url = fill(tmp_path / "store.db", make_records(days=8))
    folder = tmp_path / "models-claim"
    words = ["--state-dir", str(folder), "--fewest", "1"]
    assert main(words, env={"FEATURE_STORE_URL": url}) == 0
    said = capsys.readouterr().out
    assert "serve it: kn service update rank-items --env MODEL_PATH=" in said
    assert main(words, env={"FEATURE_STORE_URL": url}) == 0
    assert "0 new pairs of user and item; waiting for 1" in capsys.readouterr().out
    state = StateDirectory(folder)
    with pytest.raises(StateError, match="their store is elsewhere"):
        state.store_url(state.require_current())


@pytest.mark.parametrize(
    ("env", "reason"),
    [({}, "FEATURE_STORE_URL is not set"), ({"FEATURE_STORE_URL": "sqlite:////nowhere/store.db"}, "no such")],
)
def test_a_missing_store_fails_the_command(tmp_path, capsys, env, reason):
    """The command says what is missing, and the status is 1."""
    assert main(["--state-dir", str(tmp_path / "new")], env=env) == 1
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_oldest_models_are_removed(own, suggested):
    """The state directory keeps a number of models, the current one among them."""
    for number in range(2, 5):
        (own.folder / "models" / f"{number}-other").mkdir()
    (own.folder / "models" / "notes").mkdir()
    model = retrained(own, make_records(days=16, shift_day=8), deploy=lambda _: None, kept=2)
    assert model is not None
    assert {path.name for path in (own.folder / "models").iterdir()} == {model.name, "4-other", "notes"}


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """Return an API server whose first update meets a conflict."""
    env = [{"name": "AUTH", "value": "off"}, {"name": "MODEL_PATH", "value": "/models/1-a"}]
    template = {"metadata": {"name": "rank-items-00001"}, "spec": {"containers": [{"image": "x", "env": env}]}}
    with ApiServer({"metadata": {"name": "rank-items"}, "spec": {"template": template}}, conflicts=1) as server:
        yield server


def test_a_service_gets_the_new_model(api):
    """Only MODEL_PATH changes, the revision's name is left to Knative, and a conflict is tried again."""
    serve(Path("/models/2-b"), service="rank-items", cluster=api.cluster)
    template = api.service["spec"]["template"]
    assert template["spec"]["containers"][0]["env"] == [
        {"name": "AUTH", "value": "off"},
        {"name": "MODEL_PATH", "value": "/models/2-b"},
    ]
    assert template["metadata"] == {}
    with pytest.raises(PublishError, match="refuses to update Service other \\(404\\): said by the server"):
        serve(Path("/models/2-b"), service="other", cluster=api.cluster)


@pytest.mark.parametrize(
    "traffic",
    [
        [{"revisionName": "rank-items-00001", "percent": 100}],
        [{"latestRevision": True, "percent": 50}, {"revisionName": "a", "percent": 50}],
    ],
)
def test_pinned_traffic_is_refused(api, traffic):
    """A Service whose traffic does not follow the latest revision would not serve the new model."""
    api.service["spec"]["traffic"] = traffic
    with pytest.raises(PublishError, match="does not follow its latest revision"):
        serve(Path("/models/2-b"), service="rank-items", cluster=api.cluster)
    assert api.conflicts == 1


def test_a_user_who_is_erased_during_the_training_is_in_no_new_model(own):
    """The round fails before anything is deployed; the manifest of the next model says which erasures it knows."""
    records = make_records(days=16, shift_day=8)
    erasure = Erasure(digest_user(records[0].user_id), 7)
    with pytest.raises(StateError, match="run the same command again"):
        retrained(own, records, erasures=lambda: [erasure])
    assert own.require_current().model == "models/1-first"
    model = retrained(own, records[1:], erasure, deploy=lambda _: None, erasures=lambda: [erasure])
    assert model is not None
    assert read_artefact(model).manifest.training["erased_until_us"] == 7
