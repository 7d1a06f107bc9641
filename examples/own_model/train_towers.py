"""
Train a two-tower model, and write its user tower as an ONNX file and its item tower as vectors.

    python -m examples.own_model.train_towers STATE encoder.onnx items.npy

The user tower averages a vector of each item of the history and maps the average; the item tower has a vector for each
item. Both learn to tell a user's next item from all other items (softmax over the catalogue). torch trains them where it
is installed; else numpy does the same steps.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from examples.own_model.data import list_examples
from topk.item_table import F32, I64

HISTORY, DIMENSIONS = 50, 32
_EPOCHS, _BATCH, _RATE = 12, 256, 0.01
_OPSET, _IR = 17, 9


@dataclass(frozen=True)
class Towers:
    """
    The parameters of both towers.

    Attributes:
        history: (I + 1, D) vectors of the items of a history; the last row is the place after its end, and zero.
        mapping: (D, D).
        items: (I, D), the item tower.
    """

    history: F32
    mapping: F32
    items: F32


def make_steps(histories: list[list[int]], *, seed: int = 0) -> tuple[I64, I64]:
    """Return histories (N, L), -1 after their end, and the item that followed each; up to five for each user."""
    rng = np.random.default_rng(seed)
    pairs = [(rows[place + 1 :], rows[place]) for rows in histories for place in range(min(5, len(rows) - 1))]
    padded = np.full((len(pairs), HISTORY), -1, np.int64)
    for line, (before, _) in zip(padded, pairs, strict=True):
        line[: len(before[:HISTORY])] = before[:HISTORY]
    order = rng.permutation(len(pairs))
    return padded[order], np.array([item for _, item in pairs], np.int64)[order]


def start(items: int, *, seed: int = 0) -> Towers:
    """Return small random parameters."""
    rng = np.random.default_rng(seed)
    history = rng.normal(0, 0.1, (items + 1, DIMENSIONS)).astype(np.float32)
    history[-1] = 0
    return Towers(
        history, np.eye(DIMENSIONS, dtype=np.float32), rng.normal(0, 0.1, (items, DIMENSIONS)).astype(np.float32)
    )


def train_with_numpy(towers: Towers, histories: I64, wanted: I64) -> Towers:
    """Return *towers* after some epochs of Adam on the softmax loss."""
    parameters = [towers.history.copy(), towers.mapping.copy(), towers.items.copy()]
    means, squares = ([np.zeros_like(each) for each in parameters] for _ in range(2))
    step = 0
    for _ in range(_EPOCHS):
        for at in range(0, len(wanted), _BATCH):
            step += 1
            gradients = _gradients(parameters, histories[at : at + _BATCH], wanted[at : at + _BATCH])
            for place, gradient in enumerate(gradients):
                means[place] += 0.1 * (gradient - means[place])
                squares[place] += 0.001 * (gradient**2 - squares[place])
                spread = np.sqrt(squares[place] / (1 - 0.999**step)) + 1e-8
                parameters[place] -= _RATE * (means[place] / (1 - 0.9**step)) / spread
    return Towers(*parameters)


def _gradients(parameters: list[F32], histories: I64, wanted: I64) -> tuple[F32, F32, F32]:
    history, mapping, items = parameters
    known = histories >= 0
    counts = np.maximum(known.sum(axis=1, keepdims=True), 1).astype(np.float32)
    averages = history[histories].sum(axis=1) / counts
    users = averages @ mapping
    logits = users @ items.T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(wanted)), wanted] -= 1
    shares /= len(wanted)
    of_users = shares @ items
    of_history = np.zeros_like(history)
    spread = np.repeat((of_users @ mapping.T / counts)[:, None], histories.shape[1], axis=1)
    np.add.at(of_history, histories[known], spread[known])
    return of_history, averages.T @ of_users, shares.T @ users


def train_with_torch(towers: Towers, histories: I64, wanted: I64) -> Towers:
    """Return *towers* after the same steps in torch."""
    import torch  # noqa: PLC0415 - the example runs without torch, too
    from torch import nn  # noqa: PLC0415

    torch.manual_seed(0)
    end = len(towers.items)
    history = nn.Embedding.from_pretrained(torch.tensor(towers.history), freeze=False, padding_idx=end)
    mapping = nn.Parameter(torch.tensor(towers.mapping))
    items = nn.Parameter(torch.tensor(towers.items))
    optimizer = torch.optim.Adam([history.weight, mapping, items], lr=_RATE)
    lines, answers = torch.tensor(np.where(histories < 0, end, histories)), torch.tensor(wanted)
    for _ in range(_EPOCHS):
        for at in range(0, len(answers), _BATCH):
            batch = lines[at : at + _BATCH]
            counts = (batch < end).sum(dim=1, keepdim=True).clamp(min=1)
            users = (history(batch).sum(dim=1) / counts) @ mapping
            loss = nn.functional.cross_entropy(users @ items.T, answers[at : at + _BATCH])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Towers(*(each.detach().numpy() for each in (history.weight, mapping, items)))


def export_encoder(towers: Towers) -> bytes:
    """Return the user tower as an ONNX file with the input `history`, (U, L) int64, -1 after the end of a history."""
    end = len(towers.items)
    constants: dict[str, NDArray[Any]] = {
        "vectors": towers.history,
        "mapping": towers.mapping,
        "zero": np.array(0, np.int64),
        "end": np.array(end, np.int64),
        "one": np.array(1, np.float32),
        "places": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Less", ["history", "zero"], ["is_over"]),
        helper.make_node("Where", ["is_over", "end", "history"], ["rows"]),
        helper.make_node("Gather", ["vectors", "rows"], ["found"]),
        helper.make_node("ReduceSum", ["found", "places"], ["sum"], keepdims=0),
        helper.make_node("Not", ["is_over"], ["is_known"]),
        helper.make_node("Cast", ["is_known"], ["known"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["known", "places"], ["number"], keepdims=1),
        helper.make_node("Max", ["number", "one"], ["count"]),
        helper.make_node("Div", ["sum", "count"], ["average"]),
        helper.make_node("MatMul", ["average", "mapping"], ["vector"]),
    ]
    graph = helper.make_graph(
        nodes,
        "user_tower",
        [helper.make_tensor_value_info("history", TensorProto.INT64, ["users", HISTORY])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["users", DIMENSIONS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def choose_trainer() -> Callable[[Towers, I64, I64], Towers]:
    """Return the training in torch, or that in numpy where torch is not installed."""
    try:
        import torch  # noqa: F401, PLC0415
    except ImportError:
        return train_with_numpy
    return train_with_torch


def main(state: str, encoder: str, items: str) -> None:
    """Train on the users of *state*, and write both files."""
    item_ids, histories = list_examples(Path(state))
    towers = choose_trainer()(start(len(item_ids)), *make_steps(histories))
    Path(encoder).write_bytes(export_encoder(towers))
    np.save(items, towers.items)


if __name__ == "__main__":
    main(*sys.argv[1:])
