"""Follow the place of the model, and let the instance take over what is published there."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from chassis.background import repeating
from chassis.server.service import StartError
from chassis.telemetry.instruments import Instrument, Totals
from functions.rank_items.live_model import LiveModel
from functions.rank_items.model_loader import LoadedModel, Rebuild, model_instruments
from recrank.artefact import ArtefactError
from recrank.places import PlaceError
from recrank.sources import ModelSource
from recsys import metrics

log = logging.getLogger("recsys.rank_items")

LOOK_AGAIN_S = 10.0


class ModelFollower:
    """
    Takes over each model that appears at a place, and keeps the former one if that fails.

    Args:
        source: The place.
        load: Loads the artefact in a folder.
        rebuild: Returns the function that makes the model of a loaded artefact with the entries of a catalogue.

    Attributes:
        loaded: The artefact in use.
        live: The model in use.
        taken_over: Called with each artefact that replaces the former one.

    Raises:
        StartError: the place has no model that can be served.
    """

    def __init__(
        self,
        source: ModelSource,
        *,
        load: Callable[[Path], LoadedModel],
        rebuild: Callable[[LoadedModel], Rebuild],
    ) -> None:
        self._source, self._load, self._rebuild = source, load, rebuild
        self._outage, self._refusal = "", ""
        self.taken_over: Callable[[LoadedModel], None] = lambda _: None
        self.loaded = load(_fetch_first(source))
        source.keep(self.loaded.folder)
        self.live = LiveModel(self.loaded.model, rebuild=rebuild(self.loaded))

    @property
    def changes(self) -> bool:
        """Whether another model may appear."""
        return self._source.changes

    @property
    def is_behind(self) -> bool:
        """Whether the place cannot be read, or has a model that this instance refuses."""
        return bool(self._outage or self._refusal)

    def instruments(self) -> list[Instrument]:
        """Return the metrics of the artefact in use."""
        return [
            *model_instruments(lambda: self.loaded),
            Totals(metrics.MODEL_BEHIND, lambda: {(): float(self.is_behind)}),
        ]

    async def look(self) -> None:
        """Take over the model that the place has now. If that fails, log the reason and keep the former model."""
        outage, refusal, unexpected = "", self._refusal, None
        try:
            folder = await asyncio.to_thread(self._source.fetch)
            if folder is not None:
                await self._take_over(folder)
                refusal = ""
        except PlaceError as error:
            outage = str(error)
        except (ArtefactError, StartError) as error:
            refusal = str(error)
        except Exception as error:  # noqa: BLE001 - loading runs the code of a team's model, which may raise anything
            refusal, unexpected = repr(error), error
        if outage not in {"", self._outage}:
            log.warning("model_place_unavailable", extra={"reason": outage})
        if refusal not in {"", self._refusal}:
            log.error("model_refused", extra={"reason": refusal}, exc_info=unexpected)
        self._outage, self._refusal = outage, refusal

    async def _take_over(self, folder: Path) -> None:
        try:
            loaded = await asyncio.to_thread(self._load, folder)
            if loaded.declaration != self.loaded.declaration:
                raise ArtefactError(
                    f"model {loaded.identity[1]} follows another declaration; start new instances to serve it"
                )
            async with self.live.changing:
                await asyncio.to_thread(self.live.replace, loaded.model, rebuild=self._rebuild(loaded))
            self.loaded = loaded
            self.taken_over(loaded)
            log.info("model_taken_over", extra={"version": loaded.identity[1]})
        finally:
            await asyncio.to_thread(self._source.keep, self.loaded.folder)

    async def wait_and_look(self) -> None:
        """Wait until the next look is due, and look."""
        await asyncio.sleep(LOOK_AGAIN_S)
        await self.look()


def _fetch_first(source: ModelSource) -> Path:
    try:
        folder = source.fetch()
    except (PlaceError, ArtefactError) as error:
        raise StartError(str(error)) from error
    if folder is None:
        raise StartError("the place of the model was read before")
    return folder


def model_followed(model: ModelFollower) -> AbstractAsyncContextManager[None]:
    """Take over each model that appears until the block ends."""
    return repeating(model.wait_and_look) if model.changes else nullcontext()
