"""Write a ranking as rank_items answers it."""

from collections.abc import Sequence
from typing import Any

from recrank.model import Ranking, RankingModel
from recsys.contracts.wire import CatalogueItem, RankedItem, Reason


def answer_items(ranking: Ranking, model: RankingModel | None = None) -> list[RankedItem]:
    """Return the items of *ranking* with their scores rounded to three decimals, and the facts that *model* adds."""
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    pairs = zip(ranking.item_ids, ranking.scores, strict=True)
    if model is None or not ranking.include:
        return [RankedItem(item_id, round(score, 3) + 0.0) for item_id, score in pairs]
    facts = _facts(ranking, model)
    return [
        RankedItem(item_id, round(score, 3) + 0.0, **more) for (item_id, score), more in zip(pairs, facts, strict=True)
    ]


def describe_item(ranking: Ranking, model: RankingModel) -> CatalogueItem | None:
    """Return what *model* knows of the item that *ranking* is about, if the query asked for it."""
    item = model.item(ranking.about) if "item" in ranking.include else None
    if item is None:
        return None
    return CatalogueItem(item.item_id, item.title, dict(item.attributes), model.offers(item.item_id))


def _facts(ranking: Ranking, model: RankingModel) -> Sequence[dict[str, Any]]:
    facts: list[dict[str, Any]] = []
    for place, item_id in enumerate(ranking.item_ids):
        item = model.item(item_id)
        known: dict[str, Any] = {"title": item.title, "attributes": item.attributes} if item else {}
        if ranking.reasons:
            because = ranking.reasons[place]
            known["reason"] = Reason(because.source, because.item_id)
        facts.append({name: value for name, value in known.items() if name in ranking.include})
    return facts
