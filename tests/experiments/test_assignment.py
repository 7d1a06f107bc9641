"""The arm of a user depends on the declaration and the user alone; shares, layers and slices hold."""

import json
import math
import os
import subprocess
import sys
import tracemalloc
from collections import Counter

import pytest

from recsys.contracts.wire import Exploration
from recsys.experiments.assignment import Assignment, Treatment, arm_of, point
from recsys.experiments.declaration import Arm, Experiment, find_contradictions, read_experiments
from tests.running import ROOT

USERS = [f"user_{number}" for number in range(20_000)]
BLUE, RED = Arm("blue", 0.5), Arm("red", 0.5, diversity=0.3)
COLOURS = Experiment("colours", (BLUE, RED))


def arms(experiment: Experiment) -> list[str]:
    return [arm.name if (arm := arm_of(experiment, user)) else "" for user in USERS]


def almost(count: int, share: float, of: int) -> bool:
    """Tell whether *count* is within five standard deviations of a binomial count."""
    return abs(count - share * of) < 5 * math.sqrt(share * (1 - share) * of)


def test_the_points_are_those_of_every_release():
    """Known points: another hash would move the users of running experiments."""
    assert point("salt", "zoe") == pytest.approx(0.7893509799428173)
    assert point("salt", "user_1") == pytest.approx(0.09820493930101526)
    assert point("sal", "tzoe") != point("salt", "zoe")


def test_an_arm_ends_before_the_point_of_its_share():
    """A user whose point is the share of the first arm belongs to the second, one below it to the first."""
    for user in USERS[:200]:
        own = point(f"arm/{COLOURS.hashed}", user)
        for share, arm in ((own, "b"), (math.nextafter(own, 1), "a")):
            experiment = Experiment("colours", (Arm("a", share), Arm("b", 1 - share)))
            assert [each.name for each in (arm_of(experiment, user),) if each] == [arm]


def test_arms_have_their_shares():
    """Each arm gets its share of the users, and all users take part."""
    experiment = Experiment("three", (Arm("a", 0.2), Arm("b", 0.3), Arm("c", 0.5)))
    counts = Counter(arms(experiment))
    assert all(almost(counts[arm.name], arm.share, len(USERS)) for arm in experiment.arms)
    assert sum(counts.values()) == len(USERS)


def test_another_process_chooses_the_same_arms():
    """Instances with other hash seeds agree on every user."""
    code = (
        "import json, sys; from recsys.experiments.assignment import arm_of; "
        "from recsys.experiments.declaration import Experiment, Arm; "
        "e = Experiment('colours', (Arm('blue', 0.5), Arm('red', 0.5))); "
        "print(json.dumps([arm_of(e, f'user_{n}').name for n in range(20000)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == arms(COLOURS)


def test_no_user_moves_when_other_things_change():
    """Stopping an arm, changing its setting and starting other experiments move no user of this one."""
    before = arms(COLOURS)
    changed = Experiment("colours", (Arm("blue", 0.5), Arm("red", 0.5, url="http://x", stopped=True)), users=7)
    assert arms(changed) == before
    other = Experiment("layout", (Arm("old", 0.5), Arm("new", 0.5, exploration=Exploration())))
    for user, arm in zip(USERS[:1000], before, strict=False):
        treatment = Assignment([other, COLOURS]).treat(user)
        assert treatment is not None
        assert treatment.arm.split(",")[1] == arm


def test_many_layers_take_bounded_memory():
    """Thirteen layers have 8,192 combinations of arms, and an instance keeps the newest of them alone."""
    assignment = Assignment([Experiment(name, (BLUE, Arm("red", 0.5))) for name in "abcdefghijklm"])
    tracemalloc.start()
    try:
        combinations = {each.arm for user in USERS if (each := assignment.treat(user))}
        assert len(combinations) > 7000
        del combinations
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < kept < 1_000_000


def test_layers_are_independent():
    """The arms of two layers combine like independent draws."""
    layout = Experiment("layout", (Arm("old", 0.5), Arm("new", 0.5)))
    pairs = Counter(zip(arms(COLOURS), arms(layout), strict=True))
    assert len(pairs) == 4
    assert all(almost(count, 0.25, len(USERS)) for count in pairs.values())


def test_experiments_of_one_layer_share_no_user():
    """Each has its slice, and the arms within a slice have their shares."""
    one = Experiment("one", (Arm("a", 0.5), Arm("b", 0.5)), layer="list", share=0.3)
    two = Experiment("two", (Arm("a", 0.5), Arm("b", 0.5)), layer="list", offset=0.3, share=0.7)
    both = Counter((bool(first), bool(second)) for first, second in zip(arms(one), arms(two), strict=True))
    assert both.keys() == {(True, False), (False, True)}
    assert almost(both[True, False], 0.3, len(USERS))
    counts = Counter(arms(one))
    assert almost(counts["a"], 0.5, counts["a"] + counts["b"])


def test_a_treatment_joins_the_layers():
    """A user of two experiments has both names and both settings; an anonymous session has no arm."""
    first = Experiment("one", (Arm("a", 0.999999, url="http://a"), Arm("b", 0.000001)))
    second = Experiment("two", (Arm("calm", 0.999999, diversity=0.2), Arm("b", 0.000001)))
    assert Assignment([first, second]).treat("zoe") == Treatment(
        "one,two", "a,calm", "http://a", 0.2, ranker=("one", "a")
    )
    assert Assignment([first, second]).treat("") is None
    stopped = Experiment("one", (Arm("a", 0.999999, url="http://a", stopped=True), Arm("b", 0.000001)))
    assert Assignment([stopped]).treat("zoe") == Treatment("one", "a")
    tiny = Experiment("tiny", (Arm("a", 0.5), Arm("b", 0.5)), share=1e-9)
    assert Assignment([tiny]).treat("zoe") is None


A, B = '{"name": "a", "share": 0.5}', '{"name": "b", "share": 0.5}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "malformed"),
        ('[{"name": "one", "arms": []}]', "arms must have at least 2 items"),
        (f'[{{"name": "One", "arms": [{A}, {B}]}}]', "name must match"),
        (f'[{{"name": "one\\n", "arms": [{A}, {B}]}}]', "name must not hold control characters"),
        (f'[{{"name": "one", "arms": [{A}, {A}]}}]', "two arms of one name"),
        (f'[{{"name": "one", "arms": [{A}, {{"name": "b", "share": 0.4}}]}}]', "add up to 1"),
        (f'[{{"name": "one", "arms": [{A}, {B}], "offset": 0.5, "share": 0.6}}]', "ends after its layer"),
        (f'[{{"name": "one", "arms": [{A}, {B}]}}, {{"name": "one", "arms": [{A}, {B}]}}]', "declared twice"),
        (f'[{{"name": "one", "tag": "x", "arms": [{A}, {B}]}}]', "tag is not a known field"),
    ],
)
def test_a_faulty_declaration_is_refused(text, said):
    """Each fault is named."""
    with pytest.raises(ValueError, match=said):
        read_experiments(text)


def test_all_faults_of_a_declaration_are_listed_together():
    """Faults of the types and of the rules are in one message; a rule says nothing about a part with another fault."""
    first = f'{{"name": "One", "arms": [{A}, {{"name": "b", "share": 0.4, "url": "rank-items"}}], "shore": 1}}'
    second = f'{{"name": "two", "arms": [{A}, {{"name": "b", "share": "half"}}], "offset": 0.9, "share": 0.2}}'
    with pytest.raises(ValueError, match=r"\$\[0\]") as caught:
        read_experiments(f"[{first}, {second}]")
    assert str(caught.value).split("; ") == [
        "$[0].name must match ^[a-z0-9]([a-z0-9-]*[a-z0-9])?\\Z",
        "$[0].shore is not a known field",
        "$[1].arms[1].share must be a number, not a string",
        "$[0].arms[1].url must be a http(s) URL, not 'rank-items'",
        "$[0].arms has shares that do not add up to 1",
        "$[1] has a slice that ends after its layer",
    ]


def test_a_slice_with_a_fault_overlaps_nothing():
    """Two experiments of a layer are compared only if the parts that decide are right."""
    one, other = (f'{{"name": "{name}", "layer": "list", "arms": [{A}, {B}], "share": %s}}' for name in ("one", "two"))
    with pytest.raises(ValueError, match="share must be a number") as caught:
        read_experiments(f"[{one % 0.5}, {other % 'null'}]")
    assert "overlap" not in str(caught.value)


def test_experiments_that_disturb_each_other_are_refused():
    """Two layers may not change one setting, and two experiments of a layer may not share users."""
    one = Experiment("one", (Arm("a", 0.5), Arm("b", 0.5, diversity=0.1)), layer="list", share=0.5)
    other = Experiment("other", (Arm("a", 0.5), Arm("b", 0.5, diversity=0.2)))
    assert any("change the same setting (diversity)" in fault for _, fault in find_contradictions([one, other]))
    overlapping = Experiment("other", other.arms, layer="list", offset=0.4, share=0.5)
    assert any("overlap in the layer list" in fault for _, fault in find_contradictions([one, overlapping]))
    apart = Experiment("other", other.arms, layer="list", offset=0.5, share=0.5)
    assert not [*find_contradictions([one, apart])]


def test_names_fit_into_the_log():
    """The joined names of overlapping experiments have at most 64 characters."""
    long = [Experiment(f"{'x' * 25}-{number}", (Arm("a", 0.5), Arm("b", 0.5))) for number in range(3)]
    assert any("shorter names" in fault for _, fault in find_contradictions(long))
    assert not [*find_contradictions(long[:2])]
