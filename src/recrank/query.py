"""The requests that a model ranks for, and its rankings."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from recrank.exploration import RESERVE
from recrank.features import Asker
from recrank.reasons import Because
from recrank.rules import POOL
from recsys.contracts.wire import Condition, Exploration, Features, Model


class Query(Struct, frozen=True):
    """
    A request for the *top_k* best items for *features* and *history*, without the items of *exclude*.

    Attributes:
        features: Features of the user.
        history: Item ids, newest first.
        top_k: Items wanted.
        exclude: Item ids that the user may not get.
        filter: Conditions that every item meets.
        diversity: Weight of the resemblance to better items (`rules`); 0 leaves the model's own.
        include: Further facts about each item: `title`, `attributes`, `reason`; and `item` for facts about *about*.
        as_of_us: Time of the user's newest interaction, microseconds since the epoch; None if it is unknown.
        at_us: Time to recommend for; None for the time of the newest interaction in the training data.
        exploration: Draws a part of the lists at random; None draws none.
        seed: Determines what is drawn.
        user_attributes: Values of the user's declared attributes, by name.
        context: The situation of the user, by declared name.
        about: Id of the item that the list resembles; "" without one.
    """

    features: Features
    history: Sequence[str]
    top_k: int
    exclude: Sequence[str] = ()
    filter: Sequence[Condition] = ()
    diversity: float = 0.0
    include: Sequence[str] = ()
    as_of_us: int | None = None
    at_us: int | None = None
    exploration: Exploration | None = None
    seed: str = ""
    user_attributes: Mapping[str, Sequence[str]] = {}
    context: Mapping[str, str | float] = {}
    about: str = ""

    @property
    def depth(self) -> int:
        """The number of best items that the list is made of."""
        return self.top_k if self.exploration is None else max(self.top_k, min(self.top_k + RESERVE, POOL))

    def asker(self) -> Asker:
        """Return the user and the time of the request; the age group joins the attributes."""
        known = {"age_group": (self.features.age_group,), **self.user_attributes}
        at_us = time.time_ns() // 1000 if self.at_us is None else self.at_us
        return Asker(self.features, at_us, self.as_of_us, known, self.context)


@dataclass(frozen=True, slots=True)
class Ranking:
    """
    At most *top_k* item ids with their scores, best first; fewer if fewer items remain after exclusions.

    Attributes:
        item_ids: The ids.
        scores: Their scores.
        seconds: Time of each phase of the batch that ranked them; not part of the answer.
        include: The further facts that the query asked for.
        reasons: A reason for each item, if the query asked for reasons.
        propensities: With exploration, the probability of each item at its position; otherwise empty.
        model: Identity of the model that ranked them; None if the instance has only one model.
        about: The query's item.
    """

    item_ids: list[str]
    scores: list[float]
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)
    include: Sequence[str] = ()
    reasons: Sequence[Because] = ()
    propensities: Sequence[float] = ()
    model: Model | None = field(default=None, compare=False)
    about: str = ""
