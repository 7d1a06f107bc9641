"""A model that was trained elsewhere serves only if the rules and the gate admit it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from offline.admission import find_fault
from offline.content import StoreContent
from offline.erasures import ERASED_UNTIL
from offline.offer import offer
from offline.retraining import RetrainingError, RetrainingRules
from offline.state import StateDirectory
from offline.training import train
from recrank.artefact import ArtefactError, read_artefact
from recstore.erasures import Erasure
from recsys.declaration.reader import default_declaration
from recsys.records import UserRecord
from tests.offline.bad_artefacts import BAD, Around
from tests.offline.tastes import make_records, put_serving

NOW = make_records(days=16)


def up_to(day: int) -> Sequence[UserRecord]:
    return make_records(days=16, until_day=day)


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Around:
    """A model of eight days serves, and a model of twelve days may take its place."""
    state = put_serving(tmp_path_factory.mktemp("state"), up_to(8))
    found = Around(
        serving=state.model_path(state.require_current()),
        good=tmp_path_factory.mktemp("good") / "model",
        records=up_to(12),
        items={},
    )
    found.train(found.good, found.records)
    return found


@pytest.fixture
def state(around: Around) -> StateDirectory:
    return StateDirectory(around.serving.parents[1])


def try_to_offer(
    state: StateDirectory, model: Path, deploy: Callable[[Path], None], erasures: Sequence[Erasure] = ()
) -> Path:
    content = StoreContent(NOW, default_declaration(), erasures=erasures)
    return offer(state, content, model, deploy=deploy, rules=RetrainingRules(), say=print)


def refuse(_: Path) -> None:
    raise AssertionError("nothing may be deployed")


def test_there_are_twenty_bad_artefacts_of_five_kinds():
    """Each kind of fault has four variants."""
    kinds = [name.partition(":")[0] for name in BAD]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "shuffled": 4, "truncated": 4, "old": 4, "declaration": 4, "heavy user": 4,
    }  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_artefact_is_refused_with_the_reason(around, state, tmp_path, name):
    """Nothing is deployed, the current model stays, and the error says why."""
    make, reason = BAD[name]
    make(around, tmp_path / "model")
    with pytest.raises((ArtefactError, RetrainingError), match=reason):
        try_to_offer(state, tmp_path / "model", refuse)
    assert state.model_path(state.require_current()) == around.serving


def test_a_good_artefact_serves(around, tmp_path):
    """The gate admits an honest model with newer data, deploys a copy, and makes it current."""
    own = put_serving(tmp_path, up_to(8))
    deployed: list[Path] = []
    served = try_to_offer(own, around.good, deployed.append)
    assert deployed == [served] == [own.model_path(own.require_current())]
    assert read_artefact(served).manifest == read_artefact(around.good).manifest


@pytest.mark.parametrize(("share", "fault"), [(0.0, "it was trained on"), (0.7, "")])
def test_a_serving_model_with_a_heavy_user_may_have_more_data(around, share, fault):
    """The pairs of a user with most of the serving model's data do not count as data that the new model lacks."""
    good = read_artefact(around.good)
    training = {"ties": 3 * good.manifest.training["ties"], "largest_share": share}
    serving = msgspec.structs.replace(good.manifest, training=training)
    found = find_fault(good, serving=serving, declaration=default_declaration(), erasures=[])
    assert found.startswith(fault)
    assert bool(found) == bool(fault)


def test_a_model_that_does_not_know_an_erasure_is_refused(around, state, tmp_path):
    """A model of data from before the erasure of a user is refused, and a model that knows the erasure is not."""
    erasures = [Erasure("0" * 64, 7)]
    with pytest.raises(RetrainingError, match="it is old: users erased after its training read the data: 1"):
        try_to_offer(state, around.good, refuse, erasures)
    facts = read_artefact(around.good).manifest.training
    around.rewrite(tmp_path / "knows", training={**facts, ERASED_UNTIL: 7})
    own = put_serving(tmp_path / "state", up_to(8))
    served = try_to_offer(own, tmp_path / "knows", lambda _: None, erasures)
    assert served == own.model_path(own.require_current())


def test_a_model_that_knows_everything_cannot_be_judged(around, state, tmp_path):
    """Without interactions that the model has not seen, nothing shows how good it is."""
    train(NOW, items={}, folder=tmp_path / "model", dataset="test")
    with pytest.raises(RetrainingError, match="0 users have new items to compare the models on; 50 are needed"):
        try_to_offer(state, tmp_path / "model", refuse)


def test_a_failed_deployment_keeps_the_current_model(around, state):
    """If the functions do not serve the model, the next start serves the former one."""

    def fail(_: Path) -> None:
        raise RetrainingError("rolled back")

    with pytest.raises(RetrainingError, match="rolled back"):
        try_to_offer(state, around.good, fail)
    assert state.model_path(state.require_current()) == around.serving
