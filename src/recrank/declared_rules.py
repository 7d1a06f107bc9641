"""Let a model follow the rules of a declaration."""

import logging
from collections.abc import Iterator

import numpy as np

from recrank.artefact import ArtefactError
from recrank.filters import Bools, join_masks
from recrank.model import RankingModel
from recrank.rules import Rules, make_caps
from recsys.declaration.types import DeclaredRules

log = logging.getLogger("recsys.recrank")
# A program without a log would print the bare name of an event.
log.addHandler(logging.NullHandler())


def apply_rules(rules: DeclaredRules, model: RankingModel) -> RankingModel:
    """
    Let *model* follow *rules*, and return it.

    A value or an item that the catalogue lacks is logged, because a later catalogue may hold it again.

    Raises:
        ArtefactError: a rule names an unknown attribute, or no item may be returned.
    """
    named = {*rules.attributes(), *(rules.filters or ())}
    if unknown := sorted(name for name in named if not model.attributes.has(name)):
        raise ArtefactError(f"the rules name attributes that no item has: {', '.join(unknown)}")
    for fault in _faults(rules, model):
        log.warning("rule_without_items", extra={"reason": fault})
    offered = _offered(rules, model)
    if offered is not None and not offered.any():
        raise ArtefactError("the rules leave no item to recommend; correct their allow and deny")
    model.follow(_arrange(rules, model), offered=offered)
    return model


def _faults(rules: DeclaredRules, model: RankingModel) -> Iterator[str]:
    for name, conditions in rules.conditions().items():
        for fault in model.attributes.faults(conditions, f"rules.{name}"):
            yield f"{fault.path}: {fault.detail}"
    for item_id in rules.pins:
        if model.row_of(item_id) is None:
            yield f"rules.pins: the catalogue has no item {item_id!r}"


def _offered(rules: DeclaredRules, model: RankingModel) -> Bools | None:
    if not (rules.allow or rules.deny):
        return None
    masks = [model.attributes.mask(each) for each in rules.allow]
    return join_masks([*masks, *(~model.attributes.mask(each) for each in rules.deny)])


def _arrange(rules: DeclaredRules, model: RankingModel) -> Rules:
    boosts = None
    if rules.boosts:
        boosts = np.zeros(len(model.item_ids), np.float32)
        for boost in rules.boosts:
            boosts += model.attributes.mask(boost) * np.float32(boost.score)
    pins = [row for row in map(model.row_of, dict.fromkeys(rules.pins)) if row is not None]
    return Rules(pins, boosts, make_caps(model.attributes, rules.caps), rules.diversity)
