"""The model in use: the artefact with the changes of the catalogue, the rules, and without unavailable items."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence

from recrank.model import Query, Ranking, RankingModel
from recstore.catalogue.entries import Entry


class LiveModel:
    """
    A model that changes while it serves. A batch is ranked by the model before a change or by the one after it.

    Args:
        model: The model of the artefact alone.
        rebuild: Makes the model of the artefact and the entries of a catalogue.

    Attributes:
        model: The model in use.
        changing: The caller of `follow` or `replace` holds this lock.
    """

    def __init__(
        self,
        model: RankingModel,
        *,
        rebuild: Callable[[Mapping[str, Entry]], RankingModel],
    ) -> None:
        self.model = model
        self.changing = asyncio.Lock()
        # Held while a model replaces another one, so that a list that arrives at that moment reaches the new model.
        self._switching = threading.Lock()
        self._rebuild = rebuild
        self._listed: Sequence[str] = ()
        self._closed: Sequence[str] = ()
        self._entries: Mapping[str, Entry] = {}

    def rank(self, queries: Sequence[Query]) -> list[Ranking]:
        """Return the best items of every query."""
        return self.model.rank(queries)

    def make_unavailable(self, item_ids: Sequence[str]) -> None:
        """Stop returning *item_ids*, in addition to the items that the catalogue does not offer."""
        with self._switching:
            self._listed = item_ids
            self._close(self.model)

    def follow(self, entries: Mapping[str, Entry]) -> None:
        """
        Take over the *entries* of the catalogue, which may block for as long as loading the model takes.

        Raises:
            ArtefactError: the changed model cannot be made or does not fit the rules; the former one stays, without the
                items that are not offered any more.
        """
        self._closed = [each.item_id for each in entries.values() if not each.is_offered]
        self._switch(self.model)
        if _descriptions(entries) != _descriptions(self._entries):
            changed = self._rebuild(entries)
            changed.seconds = self.model.seconds
            self._switch(changed)
        self._entries = entries

    def replace(self, model: RankingModel, *, rebuild: Callable[[Mapping[str, Entry]], RankingModel]) -> None:
        """
        Take over the model of another artefact, with the entries of the catalogue; may block like `follow`.

        Raises:
            ArtefactError: the entries do not fit the artefact or the rules; the former model stays.
        """
        changed = rebuild(self._entries) if _descriptions(self._entries) else model
        model.seconds = changed.seconds = self.model.seconds
        self._rebuild = rebuild
        self._switch(changed)

    def _switch(self, model: RankingModel) -> None:
        with self._switching:
            self._close(model)
            self.model = model

    def _close(self, model: RankingModel) -> None:
        model.make_unavailable([*self._listed, *self._closed])


def _descriptions(entries: Mapping[str, Entry]) -> dict[str, str]:
    return {each.item_id: each.description for each in entries.values() if each.item()}
