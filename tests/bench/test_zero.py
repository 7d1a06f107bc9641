"""The summary of the zero mode's trials."""

from tools.bench.zero import report

ALONE = [{"extract_features": 0.5, "rank_items": 1.0, "recommend": 0.75}] * 3


def test_targets_compare_together_with_the_slowest_alone():
    """The ratio is that of the 95th percentiles, and an answer without ranking is not full."""
    answers = [(1.2, {"recommendations": [1]})] * 19 + [(9.0, {"recommendations": [1], "degraded": ["ranking"]})]
    made = report(ALONE, answers)
    assert [(target.value, target.holds) for target in made.targets] == [(0.95, False), (1.2, True), (1.2, True)]
    assert made.rows[-1] == {"woken": "together", "trials": 20, "p50_s": 1.2, "p95_s": 1.2, "max_s": 9.0}


def test_a_slow_start_of_all_misses_the_targets():
    """Functions that start one after the other take longer than the slowest alone."""
    made = report(ALONE, [(2.6, {"recommendations": [1]})])
    assert [target.holds for target in made.targets] == [True, False, False]
