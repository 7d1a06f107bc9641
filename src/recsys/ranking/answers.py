"""Write a ranking as rank_items answers it."""

from recsys.contracts.wire import RankedItem
from recsys.ranking.model import Ranking


def answer_items(ranking: Ranking) -> list[RankedItem]:
    """Return the items of *ranking* with their scores rounded to three decimals."""
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    pairs = zip(ranking.item_ids, ranking.scores, strict=True)
    return [RankedItem(item_id, round(score, 3) + 0.0) for item_id, score in pairs]
