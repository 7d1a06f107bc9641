"""Declared features: their faults with lines, and their part in the agreement of a model and a setting."""

import pytest

from recsys.declaration.agreement import agree
from recsys.declaration.reader import DeclarationError, default_declaration, parse_declaration
from tests.offline.generated_shop import BASE, MATCH, declare

LINES = BASE.count("\n") + 1


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ('kind = "attribute"\nof = "item"', "features.f.attribute is missing; the kind 'attribute' needs it"),
        ('kind = "attribute"\nof = "item"\nattribute = "style"', "features.f.values is missing; style has words"),
        (
            'kind = "attribute"\nof = "user"\nattribute = "size"',
            "must be a declared attribute of the user; size is not",
        ),
        ('kind = "attribute"\nof = "item"\nattribute = "published"\nvalues = ["a"]', "published is a number"),
        ('kind = "time_since"\nattribute = "style"', "must be of the kind time; style is of the kind categorical"),
        ('kind = "match"\nattribute = "style"\nuser_attribute = "size"', "must be a declared attribute of the user"),
        ('kind = "counter"\nname = "views"', "features.f.name must be one of: purchases"),
        ('kind = "rate"\nname = "speed"', "features.f.name must be one of: session_duration, engagement"),
        ('kind = "popularity"', "features.f.days is missing; the kind 'popularity' needs it"),
        ('kind = "popularity"\ndays = 0', "features.f.days must be at least 0.01"),
        ('kind = "recency"\ndays = 7', "features.f.days does not belong to the kind 'recency'"),
        ('kind = "python"\nclass = "shop.Margin"', "features.f.class must be a module and a class"),
        ('kind = "age"', "features.f.kind must be one of"),
        ('kind = "hour"\nunit = "s"', "features.f.unit is not a known field"),
    ],
)
def test_each_fault_has_its_line(lines, fault):
    """A feature that cannot be computed is named with its field and line."""
    with pytest.raises(DeclarationError) as refused:
        parse_declaration(f"{BASE}\n[features.f]\n{lines}\n", "shop.toml")
    assert fault in str(refused.value)
    line = int(str(refused.value).split(":")[1])
    assert LINES < line <= LINES + 1 + lines.count("\n") + 1


@pytest.mark.parametrize("name", ["blend", "history_length", "neighbours_1"])
def test_a_feature_may_not_hide_a_column(name):
    """A name that every model's columns have is refused."""
    with pytest.raises(DeclarationError, match="the name of a column that every model has"):
        parse_declaration(f'{BASE}\n[features.{name}]\nkind = "hour"\n', "shop.toml")


def test_a_model_and_a_setting_agree_on_features_and_a_store_ignores_them():
    """The message names the feature that differs."""
    plain, featured = declare(), declare(MATCH)
    assert agree(featured, plain, holder="the feature store") is featured
    with pytest.raises(DeclarationError, match="features.style_fits is absent in the model"):
        agree(featured, plain, holder="the model", features=True)


def test_a_declaration_without_features_keeps_its_digest():
    """Artefacts of declarations without features stay valid."""
    assert b"features" not in default_declaration().encode()
    assert declare(MATCH).digest != declare().digest
