"""Matches in catalogues that have an item with many values."""

import numpy as np
import pytest

from recrank.features import Batch, DeclaredFeatures
from recsys.declaration.features import Feature
from recsys.items import Item
from tests.ranking.test_features import ANN, BATCH, BEN, ITEMS
from topk.item_table import F32
from topk.row_lists import RowLists

WIDE = Item("wide", "", {"style": ("y", *(f"value {number}" for number in range(20)))})


def compute(items: list[Item], feature: Feature, batch: Batch) -> F32:
    return DeclaredFeatures({"f": feature}, items).compute(["f"], batch)["f"]


@pytest.mark.parametrize("user_attribute", [None, "style"])
def test_an_item_with_many_values_leaves_the_features_of_the_others(user_attribute):
    """The number of values of one item does not change how other items match."""
    feature = Feature("match", attribute="style", user_attribute=user_attribute)
    np.testing.assert_array_equal(compute([*ITEMS, WIDE], feature, BATCH), compute(ITEMS, feature, BATCH))


def test_an_item_with_many_values_matches_by_its_best_value():
    """Half of the history of one request has the style y; the other request has no history."""
    batch = Batch(np.array([4, 3, 4]), np.array([0, 0, 1]), [ANN, BEN], RowLists.of([[0, 1, 2, 3], []]))
    assert compute([*ITEMS, WIDE], Feature("match", attribute="style"), batch).tolist() == [0.5, 0.0, 0.0]
