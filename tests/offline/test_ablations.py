"""The variants of a model that an evaluation trains."""

from offline.als import suggest_settings
from offline.evaluation.ablations import vary
from offline.pairs import View
from offline.training import BlendSettings, ModelSettings

VIEWS = (View(0.0, 0.5, 0.2, 1.0), View(0.5, 0.5, 0.5, 3.0))
BLEND = BlendSettings(
    ordered=True,
    views=VIEWS,
    lengths=(0, 1),
    weights=((1.0, 0.5, 0.0, 0.0, 0.0), (1.0, 0.1, 0.0, 0.3, 0.6)),
    away=(0.5, 0.0, 1.0, 0.0, 0.0),
)


def test_each_source_is_removed_and_left_alone():
    """The weights of the other sources stay, and no row is left without a weight."""
    settings = ModelSettings(suggest_settings(100, 100, 1000), blend=BLEND)
    blends = {name: each.blend for name, each in vary(settings).items() if each.blend not in {None, BLEND}}
    sources = ("factors", "popularity", "recent popularity", "neighbours 1", "neighbours 2")
    assert set(blends) == {name for each in sources for name in (f"without {each}", f"{each} alone")}
    for blend in blends.values():
        assert blend is not None
        assert all(any(row) for row in (*blend.weights, blend.away))
    without, alone = blends["without factors"], blends["neighbours 2 alone"]
    assert without is not None
    assert without.weights[1] == (0.0, 0.1, 0.0, 0.3, 0.6)
    assert without.away == (0.0, 0.0, 1.0, 0.0, 0.0)
    assert alone is not None
    assert alone.weights == ((0.0, 1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0, 0.6))


def test_a_model_of_factors_alone_has_no_variants_of_sources():
    """Without a blend, only the factors vary."""
    settings = ModelSettings(suggest_settings(100, 100, 1000))
    assert all(each.blend is None for each in vary(settings).values())
