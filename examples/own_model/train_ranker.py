"""
Train a boosted-tree ranker on the interactions that a model has not seen, and write it as an ONNX file.

    python -m examples.own_model.train_ranker HELD_OUT_STATE STATE recsys.toml ranker.onnx

HELD_OUT_STATE was trained with `--holdout temporal`, STATE with everything. The interactions of STATE that HELD_OUT_STATE
lacks are the answers from which the ranker learns.
"""

import sys
from pathlib import Path

import lightgbm
import numpy as np
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from examples.own_model.data import load_model, load_records
from recrank.model import Query
from recsys.declaration.reader import read_declaration
from recsys.features import compute_features

_SETTINGS = {
    "objective": "lambdarank",
    "num_leaves": 15,
    "learning_rate": 0.05,
    "seed": 1,
    "num_threads": 1,
    "verbose": -1,
}


def train_ranker(held_out: Path, state: Path, *, inputs: list[str], trees: int = 60) -> bytes:
    """Return a ranker of the columns *inputs* as an ONNX file."""
    model, known = load_model(held_out), load_records(held_out)
    later = {record.user_id: {item.item_id for item in record.history} for record in load_records(state)}
    records = [record for record in known if record.history and record.user_id in later]
    queries = [Query(compute_features(each), [item.item_id for item in each.history], top_k=100) for each in records]
    rows, counts, features = model.shortlists(queries, inputs)
    owners = np.repeat(np.arange(counts.size), counts).tolist()
    wanted = [later[record.user_id] for record in records]
    labels = [model.item_ids[row] in wanted[owner] for row, owner in zip(rows.tolist(), owners, strict=True)]
    data = lightgbm.Dataset(features, np.array(labels, np.float32), group=counts)
    booster = lightgbm.train(_SETTINGS, data, trees)
    shape = FloatTensorType([None, len(inputs)])
    return bytes(convert_lightgbm(booster, initial_types=[("features", shape)], zipmap=False).SerializeToString())


def main(held_out: str, state: str, declaration: str, to: str) -> None:
    """Train the ranker that *declaration* declares."""
    ranker = read_declaration(Path(declaration)).ranker
    if ranker is None:
        sys.exit(f"{declaration}: has no [ranker]; add examples/own_model/ranker.toml")
    Path(to).write_bytes(train_ranker(Path(held_out), Path(state), inputs=ranker.inputs))


if __name__ == "__main__":
    main(*sys.argv[1:])
