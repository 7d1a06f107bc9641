"""Read the model and the users of a state directory."""

import asyncio
from pathlib import Path

from offline.content import read_store
from offline.state import StateDirectory
from recrank.artefact import read_artefact
from recrank.model import RankingModel
from recsys.records import UserRecord


def load_model(folder: Path) -> RankingModel:
    """Return the current model of the state directory *folder*."""
    state = StateDirectory(folder)
    return RankingModel(read_artefact(state.model_path(state.require_current())))


def load_records(folder: Path) -> list[UserRecord]:
    """Return the users of the current store of the state directory *folder*, with their histories."""
    state = StateDirectory(folder)
    return list(asyncio.run(read_store(state.store_url(state.require_current()))).records)


def list_examples(folder: Path) -> tuple[list[str], list[list[int]]]:
    """Return the item ids of the current model in the order of their rows, and each user's rows, newest first."""
    model = load_model(folder)
    histories = [
        [row for item in record.history if (row := model.row_of(item.item_id)) is not None]
        for record in load_records(folder)
    ]
    return model.item_ids, [rows for rows in histories if len(rows) > 1]
