"""The operator's rules: read from a setting, and checked against the catalogue when the model loads."""

import logging
from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from chassis.environment import Reader
from chassis.server.service import StartError
from recsys.contracts.wire import Condition, Diversity, ItemId
from recsys.ranking.filtering import Bools, join_masks
from recsys.ranking.model import RankingModel
from recsys.ranking.rules import Rules, make_caps

log = logging.getLogger("recsys.rank_items")


class Boost(Condition, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A condition, and the number that is added to the scores of the items that meet it."""

    score: Annotated[float, Meta(ge=-1000, le=1000)]


class RuleSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """
    The rules of every answer.

    Attributes:
        allow: Conditions that every item meets.
        deny: Conditions that no item meets.
        pins: Items that come first.
        boosts: Numbers that are added to scores.
        caps: The most items of a value in a list, by attribute.
        diversity: Weight of the resemblance to better items, 0 to 1.
    """

    allow: list[Condition] = []
    deny: list[Condition] = []
    pins: list[ItemId] = []
    boosts: list[Boost] = []
    caps: dict[str, Annotated[int, Meta(ge=1)]] = {}
    diversity: Diversity = 0.0

    @classmethod
    def read(cls, env: Reader) -> "RuleSettings":
        """Read the rules and add their faults to *env*."""
        try:
            return _decode(env.text("RULES", "{}"))
        except msgspec.DecodeError as error:
            env.faults.append(f"RULES cannot be read: {error}")
            return cls()

    def apply(self, model: RankingModel) -> RankingModel:
        """
        Let *model* follow the rules, and return it.

        A value or an item that the catalogue lacks is logged, because a later catalogue may hold it again.

        Raises:
            StartError: a rule names an unknown attribute, or no item may be returned.
        """
        if unknown := sorted({name for name in self._attributes() if not model.attributes.has(name)}):
            raise StartError(f"RULES names attributes that no item has: {', '.join(unknown)}")
        for fault in self._faults(model):
            log.warning("rule_without_items", extra={"reason": fault})
        offered = self._offered(model)
        if offered is not None and not offered.any():
            raise StartError("RULES leaves no item to recommend; correct its allow and deny")
        model.follow(self._rules(model), offered=offered)
        return model

    def _attributes(self) -> Iterator[str]:
        yield from (each.attribute for each in (*self.allow, *self.deny, *self.boosts))
        yield from self.caps

    def _faults(self, model: RankingModel) -> Iterator[str]:
        parts: list[tuple[str, Sequence[Condition]]] = [
            ("allow", self.allow),
            ("deny", self.deny),
            ("boosts", self.boosts),
        ]
        for name, conditions in parts:
            for fault in model.attributes.faults(conditions, f"RULES $.{name}"):
                yield f"{fault.path}: {fault.detail}"
        for item_id in self.pins:
            if model.row_of(item_id) is None:
                yield f"RULES $.pins: the catalogue has no item {item_id!r}"

    def _offered(self, model: RankingModel) -> Bools | None:
        if not (self.allow or self.deny):
            return None
        masks = [model.attributes.mask(each) for each in self.allow]
        return join_masks([*masks, *(~model.attributes.mask(each) for each in self.deny)])

    def _rules(self, model: RankingModel) -> Rules:
        boosts = None
        if self.boosts:
            boosts = np.zeros(len(model.item_ids), np.float32)
            for boost in self.boosts:
                boosts += model.attributes.mask(boost) * np.float32(boost.score)
        pins = [row for row in map(model.row_of, dict.fromkeys(self.pins)) if row is not None]
        return Rules(pins, boosts, make_caps(model.attributes, self.caps), self.diversity)


_decode = msgspec.json.Decoder(RuleSettings).decode
