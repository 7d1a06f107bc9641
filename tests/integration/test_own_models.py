"""An instance with models of a team's own: what it refuses, and what it takes over from the catalogue."""

import os
from pathlib import Path

import numpy as np
import pytest

from offline.attachment import attach, write_attached
from recrank.artefact import Item, read_artefact
from recrank.changes import change
from recrank.model import Query
from recrank.own_models import open_model
from recstore.catalogue.entries import describe
from recsys.declaration.reader import DEFAULT, parse_declaration
from recsys.features import UNKNOWN_FEATURES
from tests.demo import DemoState
from tests.running import running
from tools.cli.verbs import main as run_verb

pytestmark = pytest.mark.may_block

COLUMNS = ["blend", "popularity"]
ENCODER = f'[encoder]\nkind = "python"\nclass = "{__name__}:Average"\nitems = "items.npy"\nhistory = 10\n'
RANKER = f'[ranker]\nkind = "onnx"\npath = "ranker.onnx"\ninputs = {COLUMNS}\n'


class Average:
    """An encoder: the mean of a fixed vector of each item."""

    def __init__(self, content: bytes) -> None:
        self.vectors = make_vectors(1000)

    def encode(self, history: np.ndarray, features: np.ndarray) -> np.ndarray:
        return np.stack([self.vectors[line[line >= 0]].sum(axis=0) for line in history])


def make_vectors(items: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(items, 16)).astype(np.float32)


def make_ranker() -> bytes:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["columns"], ["scores"], keepdims=1)],
        "ranker",
        [helper.make_tensor_value_info("columns", TensorProto.FLOAT, ["rows", len(COLUMNS)])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", 1])],
    )
    graph.node[0].input.append("axes")
    graph.initializer.append(helper.make_tensor("axes", TensorProto.INT64, [1], [1]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.fixture
def attached(tmp_path: Path, demo_state: DemoState) -> Path:
    """Return the folder of the demo's model with an ONNX ranker."""
    (tmp_path / "ranker.onnx").write_bytes(make_ranker())
    declared = parse_declaration(f"{DEFAULT.read_text('utf-8')}\n{RANKER}", "recsys.toml")
    write_attached(attach(read_artefact(demo_state.model_path), declared, folder=tmp_path), tmp_path / "model")
    return tmp_path / "model"


def start(model: Path, **env: str) -> None:
    with running("rank_items", {"MODEL_PATH": str(model), **env}):
        pass


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has an NVIDIA GPU")  # noqa: PTH110
def test_an_instance_without_a_gpu_does_not_start_and_says_so(attached, demo_state):
    """EXECUTION_PROVIDER=cuda needs a GPU, and an ONNX file that uses it; the log says what to do."""
    start(attached)
    with pytest.raises(
        AssertionError, match=r"exited with 1: .*EXECUTION_PROVIDER=cuda: .*or set EXECUTION_PROVIDER=cpu"
    ):
        start(attached, EXECUTION_PROVIDER="cuda")
    with pytest.raises(AssertionError, match=r"exited with 1: .*EXECUTION_PROVIDER=cuda: the model has no ONNX file"):
        start(demo_state.model_path, EXECUTION_PROVIDER="cuda")


def test_an_instance_refuses_a_changed_ranker(attached):
    """The hash of the file is in the manifest."""
    file = attached / "ranker.model"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(AssertionError, match="ranker.model: its SHA-256 is not the manifest's"):
        start(attached)


def test_new_items_are_placed_among_the_vectors_of_an_encoder(tmp_path, demo_state):
    """The map from attributes is learned again for the vectors of the encoder, and a history may hold new items."""
    artefact = read_artefact(demo_state.model_path)
    np.save(tmp_path / "items.npy", make_vectors(len(artefact.items)))
    declared = parse_declaration(f"{DEFAULT.read_text('utf-8')}\n{ENCODER}", "recsys.toml")
    write_attached(attach(artefact, declared, folder=tmp_path), tmp_path / "model")
    new = Item("item_new", "New", artefact.items[0].attributes)
    changed, unplaced = change(read_artefact(tmp_path / "model"), {new.item_id: describe(new, at_us=1)})
    assert unplaced == []
    assert changed.arrays["item_factors"].shape == (len(artefact.items) + 1, 16)
    model = open_model(changed)
    histories = [["item_new", "item_7"], ["item_7"]]
    one, other = (model.rank([Query(UNKNOWN_FEATURES, each, top_k=5)])[0] for each in histories)
    assert "item_new" not in one.item_ids
    assert set(one.item_ids) & set(other.item_ids)
    (reason,) = model.rank([Query(UNKNOWN_FEATURES, ["item_7"], top_k=1, include=["reason"])])[0].reasons
    assert reason.source


def test_training_again_says_that_own_parts_are_missing(tmp_path, demo_state, capsys):
    """`train --from-store` makes a model without the ranker, and says how to attach it."""
    demo_state.copy_to(tmp_path / "state")
    (tmp_path / "ranker.onnx").write_bytes(make_ranker())
    (tmp_path / "recsys.toml").write_text(f"{DEFAULT.read_text('utf-8')}\n{RANKER}")
    place = ["--state-dir", str(tmp_path / "state")]
    assert run_verb(["model", "attach", str(tmp_path / "recsys.toml"), *place]) == 0
    assert run_verb(["train", "--from-store", "--refresh", *place]) == 0
    assert "does not hold the declared ranker or encoder; run ./run.sh model attach" in capsys.readouterr().err
    assert run_verb(["model", "attach", str(tmp_path / "recsys.toml"), *place]) == 0
