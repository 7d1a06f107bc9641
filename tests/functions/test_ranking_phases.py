"""The time of candidates, blend and rules, in receipts and metrics of rank_items."""

import pytest

from functions.rank_items.model_loader import LoadedModel, model_instruments
from recrank.model import RankingModel
from recsys import metrics
from tests.functions.harness import make_call, rank_request, ranking_by
from tests.ranking.test_mixture import make_blended


@pytest.mark.parametrize(
    ("fields", "phases"), [({}, {"candidates", "blend"}), ({"diversity": 0.5}, {"candidates", "blend", "rules"})]
)
async def test_a_receipt_splits_the_time_of_the_model(fields, phases):
    """Each phase that ran is an entry, the phases fit into the time of the batch, and the metric adds them up."""
    model = RankingModel(make_blended())
    loaded = LoadedModel(model, 0.0, 0.0, 1.0)
    (ranking,) = [each for each in model_instruments(lambda: loaded) if each.definition is metrics.RANKING]

    def totals() -> dict[str, float]:
        return {sample.labels["phase"]: sample.value for sample in ranking.collect().samples}

    before = totals()
    call = make_call(rank_request(**fields))
    with ranking_by(model) as handler:
        await handler(call)
    receipt = call.receipt
    spent = {phase: seconds for phase, seconds in receipt.durations.items() if phase in totals()}
    assert spent.keys() == phases
    assert 0 < sum(spent.values()) <= receipt.durations["model"]
    for phase, seconds in totals().items():
        assert seconds - before[phase] == pytest.approx(spent.get(phase, 0.0))
