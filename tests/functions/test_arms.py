"""Experiments in recommend: each user's arm ranks, and the default ranks if the arm fails."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import Raw

from chassis.environment import SettingsError
from chassis.wire.problems import InvalidRequestError
from functions.recommend.arms import ARM_SHARE, Arms
from functions.recommend.handler import Recommend
from functions.recommend.hops import RankingClient
from functions.recommend.recommender import RecommendAnswer, Recommended
from functions.recommend.served import Noted, describe
from functions.recommend.settings import Settings
from recsys.contracts.wire import Exploration, RecommendRequest
from recsys.experiments.assignment import Assignment, Treatment
from recsys.experiments.declaration import Arm, Experiment
from tests.functions.harness import BUDGET_S, DOWN, FEATURES, FakeHop, make_call, make_recommender
from tests.functions.test_exploring_lists import ADDRESSES

RED = Experiment("colours", (Arm("blue", 0.5), Arm("red", 0.5, url="http://red")))
USERS = [f"user_{number}" for number in range(40)]


def ranked(item_id: str) -> dict[str, object]:
    return {"items": [{"item_id": item_id, "score": 0.5}], "model": {"name": item_id, "version": "1"}}


BLUE_LIST, RED_LIST = ranked("blue"), ranked("red")


class Instance:
    """An instance of recommend over fake functions; *red* answers as the arm's rank_items."""

    def __init__(
        self,
        experiments: Sequence[Experiment] = (RED,),
        *,
        red: object = RED_LIST,
        blue: object = BLUE_LIST,
        features: object = FEATURES,
    ) -> None:
        self.default, self.red = FakeHop(blue), FakeHop(red)
        clients = {"http://red": RankingClient(self.red)}
        self.arms = Arms(experiments, default=RankingClient(self.default), clients=clients)
        self.recommender = make_recommender(FakeHop(features), self.default, arms=self.arms)

    async def ask(self, user_id: str, **fields: Any) -> list[str]:
        reply = await Recommend(self.recommender)(make_call({**({"user_id": user_id} if user_id else {}), **fields}))
        return [item["item_id"] for item in json.loads(reply.body)["recommendations"]]

    def counts(self) -> dict[str, float]:
        samples = self.arms.instruments()[0].collect().samples
        return {sample.labels["outcome"]: sample.value for sample in samples}


def arm(user_id: str) -> str:
    treatment = Assignment([RED]).treat(user_id)
    assert treatment is not None
    return treatment.arm


async def test_each_user_gets_the_list_of_the_arm():
    """A user's calls go to the address of the arm; a session without a user goes to the default."""
    instance = Instance()
    lists = {user: await instance.ask(user) for user in USERS}
    assert lists == {user: [arm(user)] for user in USERS}
    assert await instance.ask("", history=[{"item_id": "a"}]) == ["blue"]
    assert {*map(arm, USERS)} == {"blue", "red"}
    assert instance.counts() == {"answered": sum(arm(user) == "red" for user in USERS), "failed": 0}


async def test_no_user_switches_arms():
    """100,000 choices of many instances, old and new, agree on the arm of each user."""
    instances = [Instance(), Instance(), Instance([Experiment("new", RED.arms[:1] * 2), RED])]
    seen: dict[str, set[str]] = {}
    for number in range(100_000):
        user = f"user_{number % 500}"
        treatment = instances[number % 7 % 3].arms.treat(user)
        assert treatment is not None
        seen.setdefault(user, set()).add(treatment.arm.split(",")[-1])
    assert all(len(arms) == 1 for arms in seen.values())
    assert Counter(next(iter(arms)) for arms in seen.values()).keys() == {"blue", "red"}


@pytest.mark.parametrize("red", [DOWN, {"error": {"errors": []}}, {"results": []}])
async def test_a_failing_arm_is_answered_by_the_default(red):
    """The caller gets the default's list, the arm's failure is counted, and the user stays in the arm."""
    instance = Instance(red=red)
    assert {user: await instance.ask(user) for user in USERS} == {user: ["blue"] for user in USERS}
    assert instance.counts() == {"answered": 0, "failed": sum(arm(user) == "red" for user in USERS)}
    user = next(user for user in USERS if arm(user) == "red")
    (answer,) = await instance.recommender.recommend(
        [RecommendRequest(user)], call=make_call({"user_id": user}), strict=True
    )
    assert isinstance(answer, Recommended)
    assert answer.arm_failed
    assert answer.treatment is not None
    assert answer.treatment.arm == "red"


async def test_arms_with_one_address_are_counted_apart():
    """Two arms may share a revision, and the calls for the users of each arm count for that arm."""
    both = Experiment("colours", (Arm("pink", 0.5, url="http://red"), Arm("red", 0.5, url="http://red")))
    instance = Instance([both])
    for user in USERS:
        await instance.ask(user)
    chosen = Counter(found.arm for user in USERS if (found := Assignment([both]).treat(user)))
    samples = instance.arms.instruments()[0].collect().samples
    answered = {each.labels["arm"]: each.value for each in samples if each.labels["outcome"] == "answered"}
    assert answered == dict(chosen)
    assert min(answered.values()) > 0


async def test_a_fault_of_the_caller_does_not_count_against_the_arm():
    """A filter that the arm refuses is the caller's fault: the caller gets it, and the default is not asked."""
    fault = {"path": "$.filter[0].attribute", "detail": "must be declared"}
    instance = Instance(red={"results": [{"error": {"errors": [fault]}}]})
    user = next(user for user in USERS if arm(user) == "red")
    with pytest.raises(InvalidRequestError, match="not valid") as caught:
        await instance.ask(user, filter=[{"attribute": "x", "any_of": ["a"]}])
    assert [each.path for each in caught.value.faults] == [fault["path"]]
    assert instance.counts() == {"answered": 1, "failed": 0}
    assert not instance.default.sent


async def test_an_arm_leaves_time_for_the_default():
    """The arm gets half of the time left, so that the default can answer after it hangs."""
    instance = Instance()
    user = next(user for user in USERS if arm(user) == "red")
    await instance.ask(user)
    (given,) = instance.red.budgets
    assert given == pytest.approx(BUDGET_S * ARM_SHARE, rel=0.05)


async def test_a_batch_is_split_by_address():
    """The users of a batch get their arms' lists in order, with one request to each address."""
    instance = Instance(
        red={"results": [RED_LIST] * sum(arm(user) == "red" for user in USERS)},
        blue={"results": [BLUE_LIST] * sum(arm(user) == "blue" for user in USERS)},
        features={"results": [FEATURES] * len(USERS)},
    )
    reply = await Recommend(instance.recommender)(make_call({"requests": [{"user_id": user} for user in USERS]}))
    results = json.loads(reply.body)["results"]
    assert [each["recommendations"][0]["item_id"] for each in results] == [arm(user) for user in USERS]
    assert (len(instance.red.sent), len(instance.default.sent)) == (1, 1)


async def test_an_arm_changes_diversity_and_exploration():
    """The settings of the arm are those of its calls; a diversity of the caller counts more."""
    calm = Experiment(
        "calm", (Arm("calm", 0.999999, diversity=0.4, exploration=Exploration(0.2)), Arm("other", 0.000001))
    )
    instance = Instance([calm])
    await instance.ask("zoe")
    await instance.ask("zoe", diversity=0.9)
    own, given = instance.default.sent
    assert (own["diversity"], own["exploration"]["share"]) == (0.4, 0.2)
    assert given["diversity"] == 0.9
    assert own["exposure_id"] != given["exposure_id"]


def test_the_event_names_experiment_and_arm():
    """The served event has the experiment, the arm, the id that determined the draw, and whether the arm failed."""
    answer = RecommendAnswer("zoe", Raw(b'[{"item_id":"a","score":0.9}]'))
    treatment = Treatment("colours", "red")
    recommended = Recommended(answer, Raw(b"null"), Raw(b"null"), "e1", treatment, arm_failed=True)
    served = describe(Noted(recommended, "x1", "r", time_us=0, took_s=0))
    assert (served.experiment, served.arm, served.arm_failed) == ("colours", "red", True)
    plain = describe(Noted(Recommended(answer, Raw(b"null")), "x1", "r", time_us=0, took_s=0))
    assert (plain.experiment, plain.arm) == (None, None)


def test_the_setting_declares_experiments():
    """A declaration is read; a faulty one and an address without a scheme are named."""
    assert Settings.from_env(ADDRESSES).experiments == ()
    declared = json.dumps([{"name": "one", "arms": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5}]}])
    assert [each.name for each in Settings.from_env({**ADDRESSES, "EXPERIMENTS": declared}).experiments] == ["one"]
    for text in (declared.replace("0.5", "0.6"), declared.replace('"b"', '"b", "url": "rank-items"'), "[", '{"a": 1}'):
        with pytest.raises(SettingsError, match="EXPERIMENTS"):
            Settings.from_env({**ADDRESSES, "EXPERIMENTS": text})
