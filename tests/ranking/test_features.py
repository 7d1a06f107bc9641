"""The library of features: what each kind computes, for a batch as for each request alone."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from recrank.features import Asker, Batch, DeclaredFeatures
from recsys.contracts.wire import Features
from recsys.declaration.features import Feature
from recsys.features import UNKNOWN_FEATURES
from recsys.items import Item
from topk.item_table import F32
from topk.row_lists import RowLists

DAY_US = 86_400_000_000
# Monday, 5 January 2026, 09:30 UTC.
AT_US = 1_767_605_400_000_000
ITEMS = [
    Item("a", "", {"style": ("x", "y"), "price": ("9.5",), "since": (repr(AT_US / 1e6 - 86_400),)}),
    Item("b", "", {"style": ("y",), "since": (repr(AT_US / 1e6 + 86_400),)}),
    Item("c", "", {"style": ("z", "z")}),
    Item("d", "", {}),
]
ANN = Asker(
    Features(age_group="25-34", avg_session_duration=120.0, total_purchases=4, engagement_score=0.5),
    AT_US,
    AT_US - 2 * DAY_US,
    {"style": ("z", "new"), "size": ("12",)},
    {"device": "phone", "width": 320.0},
)
BEN = Asker(UNKNOWN_FEATURES, AT_US, None, {}, {})
WIDE = Item("wide", "", {"style": ("y", *(f"value {number}" for number in range(20)))})
BATCH = Batch(np.array([0, 1, 2, 3, 0, 2]), np.array([0, 0, 0, 0, 1, 1]), [ANN, BEN], RowLists.of([[0, 1, 2, 3], []]))


def compute(feature: Feature, items: list[Item] = ITEMS, batch: Batch = BATCH) -> F32:
    return DeclaredFeatures({"f": feature}, items).compute(["f"], batch)["f"]


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        (Feature("attribute", of="item", attribute="price"), [9.5, -1, -1, -1, 9.5, -1]),
        (Feature("attribute", of="item", attribute="style", values=["y", "x"]), [2, 1, 0, -1, 2, 0]),
        (Feature("attribute", of="user", attribute="size", missing=7), [12, 12, 12, 12, 7, 7]),
        (Feature("attribute", of="context", attribute="device", values=["pc", "phone"]), [2, 2, 2, 2, -1, -1]),
        (Feature("attribute", of="context", attribute="width"), [320, 320, 320, 320, -1, -1]),
        (Feature("counter", name="purchases"), [4, 4, 4, 4, 0, 0]),
        (Feature("rate", name="session_duration"), [120, 120, 120, 120, 0, 0]),
        (Feature("rate", name="engagement"), [0.5, 0.5, 0.5, 0.5, 0, 0]),
        (Feature("recency"), [2, 2, 2, 2, -1, -1]),
        (Feature("time_since", attribute="since"), [1, 0, -1, -1, 1, -1]),
        (Feature("match", attribute="style"), [0.5, 0.5, 0.25, 0, 0, 0]),
        (Feature("match", attribute="style", user_attribute="style"), [0, 0, 1, 0, 0, 0]),
        (Feature("popularity", days=7), [0.5, 1, 0, 0, 0.5, 0]),
        (Feature("hour"), [9] * 6),
        (Feature("weekday"), [0] * 6),
    ],
    ids=lambda value: f"{value.kind}" if isinstance(value, Feature) else "",
)
def test_each_kind_computes_what_the_guide_says(feature, expected):
    """A batch has the features of its requests, and an absent value is the missing number."""
    popularity = {"popularity_f": np.array([0.5, 1, 0, 0], np.float32)}
    made = DeclaredFeatures({"f": feature}, ITEMS, popularity)
    found = made.compute(["f"], BATCH)["f"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for place, asker in enumerate(BATCH.askers):
        mine = BATCH.owners == place
        alone = Batch(
            BATCH.rows[mine], np.zeros(mine.sum(), np.int64), [asker], BATCH.history.of_users(np.array([place]))
        )
        assert np.array_equal(made.compute(["f"], alone)["f"], found[mine])


@pytest.mark.parametrize(("moment", "hour"), [("0001-01-01T00:00:00+14:00", 10), ("9999-12-31T23:59:59-14:00", 13)])
def test_a_time_at_the_edge_of_the_calendar_has_an_hour(moment, hour):
    """A request may name any time that its contract allows, also one whose year in UTC is 0 or 10000."""
    at_us = (datetime.fromisoformat(moment) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    batch = Batch(np.array([0]), np.array([0]), [Asker(UNKNOWN_FEATURES, at_us, None, {}, {})], RowLists.of([[]]))
    made = DeclaredFeatures({"hour": Feature("hour"), "weekday": Feature("weekday")}, ITEMS)
    found = made.compute(["hour", "weekday"], batch)
    assert found["hour"].tolist() == [hour]
    assert 0 <= found["weekday"].item() <= 6


def test_a_number_beyond_float32_counts_as_missing():
    """A ranker gets no infinity, even if a caller sends a very large number."""
    asker = Asker(UNKNOWN_FEATURES, AT_US, None, {}, {"width": 1e300})
    batch = Batch(np.array([0]), np.array([0]), [asker], RowLists.of([[]]))
    assert compute(Feature("attribute", of="context", attribute="width"), batch=batch) == -1


class Odd:
    """A feature that is not finite for the second item."""

    def __init__(self, items: list[Item]) -> None:
        self.values = np.array([1.0, np.inf, 3.0, np.nan][: len(items)])

    def compute(self, batch: Batch) -> np.ndarray:
        return self.values[batch.rows]


class Short(Odd):
    """A feature that returns too few numbers."""

    def compute(self, batch: Batch) -> np.ndarray:
        return super().compute(batch)[1:]


def test_a_python_class_computes_a_feature():
    """Numbers that are not finite count as missing."""
    odd = Feature("python", class_=f"{__name__}:Odd", missing=-5)
    assert compute(odd).tolist() == [1, -5, 3, -5, 1, 3]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module_of_ours:Margin", "cannot be imported"),
        ("recsys.items:Margin", "cannot be imported"),
        ("recsys.items:Item", "must be a class with a method compute"),
    ],
)
def test_a_class_that_is_none_is_named(path, message):
    """A path that leads to no feature is refused with the path."""
    with pytest.raises((ValueError, TypeError), match=f"{path}.*{message}"):
        DeclaredFeatures({"f": Feature("python", class_=path)}, ITEMS)


def test_a_class_must_return_a_number_for_each_candidate():
    """Another shape is an error that names the feature."""
    with pytest.raises(ValueError, match=r"feature f returns \(5,\) for 6 candidates"):
        compute(Feature("python", class_=f"{__name__}:Short"))


@pytest.mark.parametrize("user_attribute", [None, "style"])
def test_an_item_with_many_values_leaves_the_features_of_the_others(user_attribute):
    """The number of values of one item does not change how other items match."""
    feature = Feature("match", attribute="style", user_attribute=user_attribute)
    np.testing.assert_array_equal(compute(feature, [*ITEMS, WIDE]), compute(feature))


def test_an_item_with_many_values_matches_by_its_best_value():
    """Half of the history of one request has the style y; the other request has no history."""
    batch = Batch(np.array([4, 3, 4]), np.array([0, 0, 1]), [ANN, BEN], RowLists.of([[0, 1, 2, 3], []]))
    assert compute(Feature("match", attribute="style"), [*ITEMS, WIDE], batch).tolist() == [0.5, 0.0, 0.0]
