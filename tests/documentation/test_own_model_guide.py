"""The guide "Bring your model" and its example: the commands train, check, attach and serve models of a team's own."""

import runpy
import shlex
import shutil
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from examples.own_model import train_towers
from examples.own_model.data import list_examples
from recrank.onnx_model import OnnxModel
from recsys.declaration.reader import DEFAULT
from tests.demo import DemoState
from tests.documentation.pages import ROOT, block, blocks
from tests.running import CLIENT, running_pipeline
from tests.trained import model_of, store_of
from tools.cli.verbs import main as run_verb

GUIDE = ROOT / "docs/how-to/bring-your-model.md"
EXAMPLE = ROOT / "examples/own_model"

# The locks leave out torch, because its builds bring gigabytes of CUDA libraries. Its training is tested where torch is
# installed.
TRAININGS = [train_towers.train_with_numpy, *([train_towers.train_with_torch] if find_spec("torch") else [])]

pytestmark = [pytest.mark.may_block, pytest.mark.timeout(300)]

TRAIN_RANKER, TRAIN_TOWERS, CHECK, ATTACH, CHECK_CURRENT = (
    shlex.split(line) for each in blocks(GUIDE) if each.language == "sh" for line in each.code.splitlines()
)


@pytest.fixture
def folder(tmp_path: Path, demo_state: DemoState, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory of the commands; `state` holds the demo's model."""
    monkeypatch.chdir(tmp_path)
    demo_state.copy_to(tmp_path / "state")
    return tmp_path


def declare(*tables: str) -> None:
    Path("recsys.toml").write_text("\n".join([DEFAULT.read_text("utf-8"), *tables]), "utf-8")


def run_module(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `.venv/bin/python -m MODULE ARGUMENTS` in this process, which has imported most of what the module needs."""
    assert words[:2] == [".venv/bin/python", "-m"]
    monkeypatch.setattr(sys, "argv", words[2:])
    monkeypatch.delitem(sys.modules, words[2], raising=False)
    runpy.run_module(words[2], run_name="__main__")


def verb(command: list[str]) -> int:
    return run_verb([*command[1:], "--state-dir", "state"])


def serve(stack: ExitStack, *, python_path: Path | None = None) -> list[dict[str, object]]:
    """Return the answer of the whole pipeline for a user, with the current model of `state`."""
    state = Path("state")
    ranking = {"MODEL_PATH": str(model_of(state))} | ({"PYTHONPATH": str(python_path)} if python_path else {})
    pipeline = stack.enter_context(running_pipeline({"FEATURE_STORE_URL": store_of(state)}, ranking))
    answer = CLIENT.post(pipeline.recommend.url, json={"user_id": "user_1", "top_k": 10})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["recommendations"])


def test_the_tables_of_the_page_are_those_of_the_example():
    """The page shows the files that the example contains."""
    assert block(GUIDE, "onnx.toml") in (EXAMPLE / "ranker.toml").read_text("utf-8")
    assert block(GUIDE, "encoder.toml") in (EXAMPLE / "encoder.toml").read_text("utf-8")


def test_the_python_ranker_serves(folder, monkeypatch, capsys):
    """The class of the page passes the kit, is attached, and changes the answers of the pipeline."""
    (folder / "my_ranker.py").write_text(block(GUIDE, "my_ranker.py"), "utf-8")
    monkeypatch.syspath_prepend(folder)
    declare(block(GUIDE, "python.toml"))
    with ExitStack() as stack:
        before = serve(stack)
        assert verb(CHECK) == 0
        assert capsys.readouterr().out.count("\nok ") + 1 == 4
        assert verb(ATTACH) == 0
        assert verb(CHECK_CURRENT) == 0
        after = serve(stack, python_path=folder)
    assert len(after) == len(before) == 10
    assert before != after


@pytest.mark.scenario
def test_the_trees_and_the_towers_serve(folder, held_out, monkeypatch, capsys):
    """The example trains both models, the kit passes them, and the pipeline answers with them."""
    shutil.copytree(held_out, "held-out")
    tables = [(EXAMPLE / name).read_text("utf-8") for name in ("ranker.toml", "encoder.toml")]
    declare(tables[0])
    run_module(TRAIN_RANKER, monkeypatch)
    run_module(TRAIN_TOWERS, monkeypatch)
    assert verb(CHECK) == 0
    assert "the ranker (onnx" in capsys.readouterr().out
    assert verb(ATTACH) == 0
    declare(*tables)
    assert verb(ATTACH) == 0
    assert list_examples(Path("state"))[1], "the towers can be trained again"
    assert verb(CHECK_CURRENT) == 0
    said = capsys.readouterr().out
    assert "the encoder (onnx" in said
    assert "batch equals single: 32 requests, bit for bit" in said
    with ExitStack() as stack:
        assert len(serve(stack)) == 10
    assert sum(len(table.splitlines()) for table in tables) <= 30


@pytest.mark.parametrize("train", TRAININGS)
def test_the_exported_tower_gives_the_vectors_of_the_trained_one(train):
    """
    Both trainings take the same steps, and the exported file gives the vectors of the towers.

    Averages leave out the places after the end of a history; an empty history gives a zero vector.
    """
    steps = train_towers.make_steps([[row, row + 1, row + 2, (row * 7) % 40] for row in range(30)])
    first = train_towers.start(40)
    towers, known = train(first, *steps), train_towers.train_with_numpy(first, *steps)
    np.testing.assert_allclose(towers.items, known.items, rtol=1e-2, atol=1e-3)
    check_export(towers, steps[0])


def check_export(towers: train_towers.Towers, histories: np.ndarray) -> None:
    model = OnnxModel(train_towers.export_encoder(towers), name="encoder.onnx", provider="cpu")
    histories = np.concatenate([histories, np.full((1, train_towers.HISTORY), -1)])
    found = model.run({"history": histories})
    for line, vector in zip(histories, found, strict=True):
        known = towers.history[line[line >= 0]]
        wanted = known.mean(axis=0) @ towers.mapping if len(known) else np.zeros(train_towers.DIMENSIONS)
        np.testing.assert_allclose(vector, wanted, rtol=1e-4, atol=1e-5)
