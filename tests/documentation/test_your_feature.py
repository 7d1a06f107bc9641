"""The guide "Your feature": its declaration has no fault, and its class computes what the page says."""

import numpy as np
import pytest

from recrank.features import Asker, Batch, DeclaredFeatures
from recsys.declaration.reader import parse_declaration
from recsys.features import UNKNOWN_FEATURES
from recsys.items import Item
from tests.documentation.pages import ROOT, block
from topk.row_lists import RowLists

GUIDE = ROOT / "docs/how-to/your-feature.md"


@pytest.mark.may_block
def test_the_page_s_declaration_and_class_compute_features(tmp_path, monkeypatch):
    """The class of the page joins the declared kinds, and an item without a price has the missing value."""
    code = block(GUIDE, "shop_features.py")
    (tmp_path / "shop_features.py").write_text(code, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    declaration = parse_declaration(block(GUIDE, "recsys.toml"), "recsys.toml")
    assert len([line for line in code.splitlines() if line]) <= 20
    features = declaration.features or {}
    items = [
        Item("hat", "", {"style": ("plain",), "price": ("20.0",), "cost": ("15.0",)}),
        Item("cap", "", {"style": ("loud",)}),
    ]
    asker = Asker(UNKNOWN_FEATURES, 0, None, {"favourite": ("loud",), "age_group": ("25-34",)}, {})
    batch = Batch(np.array([0, 1]), np.array([0, 0]), [asker], RowLists.of([[0]]))
    made = DeclaredFeatures(features, items, {"popularity_popular_this_week": np.array([1, 0], np.float32)})
    found = {name: values.tolist() for name, values in made.compute(made.names, batch).items()}
    assert found["margin"] == [0.25, -1.0]
    assert found["fits_favourite"] == [0.0, 1.0]
    assert found["fits_history"] == [1.0, 0.0]
    assert found["age"] == [3.0, 3.0]
    assert found.keys() == features.keys()
