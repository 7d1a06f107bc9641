"""The time of candidates, blend and rules, in receipts and metrics of rank_items."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from chassis.batching.batcher import Batcher
from chassis.batching.queue import BatchLimits
from chassis.call import Call, Deadline
from chassis.receipt import Receipt
from functions.rank_items.handler import RankItems
from functions.rank_items.model_loader import LoadedModel, model_instruments
from recrank.model import Query, Ranking, RankingModel
from recsys import metrics
from tests.functions.test_filtered_requests import make_request
from tests.ranking.test_mixture import make_blended


@pytest.mark.parametrize(
    ("fields", "phases"), [({}, {"candidates", "blend"}), ({"diversity": 0.5}, {"candidates", "blend", "rules"})]
)
def test_a_receipt_splits_the_time_of_the_model(fields, phases):
    """Each phase that ran is an entry, the phases fit into the time of the batch, and the metric adds them up."""
    model = RankingModel(make_blended())
    loaded = LoadedModel(model, 0.0, 0.0, 1.0)
    (ranking,) = [each for each in model_instruments(lambda: loaded) if each.definition is metrics.RANKING]

    def totals() -> dict[str, float]:
        return {sample.labels["phase"]: sample.value for sample in ranking.collect().samples}

    before = totals()
    receipt = Receipt(0.0)
    call = Call(json.dumps(make_request(**fields)).encode(), (), "id", receipt, Deadline.after(60))

    async def answer() -> None:
        limits = BatchLimits(max_batch_size=8, max_wait_s=0.0, max_queue_size=8)
        with ThreadPoolExecutor(1) as executor:
            batcher: Batcher[Query, Ranking] = Batcher(model.rank, limits=limits, executor=executor)
            await RankItems(batcher, model=model.identity, attributes=lambda: model.attributes)(call)
            batcher.drain()

    asyncio.run(answer())
    spent = {phase: seconds for phase, seconds in receipt.durations.items() if phase in totals()}
    assert spent.keys() == phases
    assert 0 < sum(spent.values()) <= receipt.durations["model"]
    for phase, seconds in totals().items():
        assert seconds - before[phase] == pytest.approx(spent.get(phase, 0.0))
