"""The join of exposures and actions: its rules, and that it depends on the two sets alone."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from recstore.exposures.join import join
from recstore.exposures.records import Action, Exposure, ExposureOutcome, ShownItem

MINUTE_US = 60_000_000
WINDOW_US = 60 * MINUTE_US


def shown(exposure_id: str, minute: int, *items: str) -> Exposure:
    listed = tuple(ShownItem(item, place) for place, item in enumerate(items, 1))
    return Exposure(exposure_id, "ann", minute * MINUTE_US, listed, "ials", "abc", "colours", "red")


def did(event: str, minute: int, item: str, *, kind: str = "click", exposure_id: str = "") -> Action:
    return Action(event, "ann", minute * MINUTE_US, kind, item, exposure_id)


def outcomes(joined: list[ExposureOutcome]) -> dict[tuple[str, str], tuple[str, ...]]:
    found = {(each.exposure_id, item.item_id): item.outcomes for each in joined for item in each.items}
    return {pair: kinds for pair, kinds in found.items() if kinds}


def test_an_action_belongs_to_the_exposure_that_it_names():
    """A named exposure gets the action, however late; an unknown one, or one without the item, gets nothing."""
    exposures = [shown("one", 0, "lamp", "desk"), shown("two", 5, "lamp")]
    actions = [
        did("a", 900, "lamp", exposure_id="one"),
        did("b", 6, "lamp", exposure_id="unknown"),
        did("c", 6, "desk", exposure_id="two"),
    ]
    assert outcomes(join(exposures, actions, window_us=WINDOW_US)) == {("one", "lamp"): ("click",)}


def test_an_action_without_exposure_belongs_to_the_newest_in_the_window():
    """The newest exposure of the item before the action gets it; after the window, none does."""
    exposures = [
        shown("one", 0, "lamp"),
        shown("two", 10, "lamp"),
        shown("three", 20, "desk"),
        shown("four", 30, "lamp"),
    ]
    actions = [did("a", 25, "lamp"), did("b", 10, "lamp", kind="purchase"), did("c", 91, "lamp"), did("d", 81, "desk")]
    joined = join(exposures, actions, window_us=WINDOW_US)
    assert outcomes(joined) == {("two", "lamp"): ("purchase", "click")}
    assert outcomes(join(exposures, [did("e", 90, "lamp")], window_us=WINDOW_US)) == {("four", "lamp"): ("click",)}


def test_an_outcome_carries_what_the_exposure_says():
    """The joined record has the exposure's model, experiment and arm, and the items' positions and propensities."""
    (joined,) = join([shown("one", 0, "lamp", "desk")], [], window_us=WINDOW_US)
    assert (joined.user_id, joined.time_us, joined.model, joined.version) == ("ann", 0, "ials", "abc")
    assert (joined.experiment, joined.arm) == ("colours", "red")
    assert [(item.item_id, item.position, item.propensity) for item in joined.items] == [
        ("lamp", 1, 1.0),
        ("desk", 2, 1.0),
    ]


items = st.sampled_from(["lamp", "desk", "sofa"])
minutes = st.integers(0, 180)
exposures_ = st.lists(
    st.builds(shown, st.sampled_from("vwxyz"), minutes, items, items), unique_by=lambda each: each.exposure_id
)
actions_ = st.lists(
    st.builds(did, st.uuids().map(str), minutes, items, exposure_id=st.sampled_from(["", "", "v", "w", "unknown"])),
    unique_by=lambda each: each.event,
)


@given(exposures_, actions_, st.randoms(use_true_random=False))
def test_the_order_does_not_matter_and_no_action_counts_twice(exposures, actions, draw):
    """Any order gives the same join, and each action belongs to at most one exposure."""
    distinct = [e for e in exposures if len({item.item_id for item in e.items}) == len(e.items)]
    joined = join(distinct, actions, window_us=WINDOW_US)
    again = join(draw.sample(distinct, len(distinct)), draw.sample(actions, len(actions)), window_us=WINDOW_US)
    assert joined == again
    counted = sum(len(kinds) for kinds in outcomes(joined).values())
    named = Counter(action.exposure_id != "unknown" for action in actions)[True]
    assert counted <= named
