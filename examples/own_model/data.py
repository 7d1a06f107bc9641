"""Read the model and the users of a state directory."""

import asyncio
from pathlib import Path

from offline.content import read_store
from offline.state import StateDirectory
from recrank.artefact import Artefact, read_artefact
from recrank.model import RankingModel
from recsys.records import UserRecord


def load_model(folder: Path) -> RankingModel:
    """Return the current model of the state directory *folder*."""
    return RankingModel(_read(folder))


def _read(folder: Path) -> Artefact:
    state = StateDirectory(folder)
    return read_artefact(state.model_path(state.require_current()))


def load_records(folder: Path) -> list[UserRecord]:
    """Return the users of the current store of the state directory *folder*, with their histories."""
    state = StateDirectory(folder)
    return list(asyncio.run(read_store(state.store_url(state.require_current()))).records)


def list_examples(folder: Path) -> tuple[list[str], list[list[int]]]:
    """Return the item ids of the current model in the order of their rows, and each user's rows, newest first."""
    # Items alone are read: a model to which an encoder was attached cannot be opened without it.
    item_ids = [item.item_id for item in _read(folder).items]
    row_of = {item_id: row for row, item_id in enumerate(item_ids)}
    histories = [
        [row_of[item.item_id] for item in record.history if item.item_id in row_of] for record in load_records(folder)
    ]
    return item_ids, [rows for rows in histories if len(rows) > 1]
