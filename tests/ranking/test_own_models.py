"""Rankers and user encoders of a team's own: they serve through the model, and misfits are refused at the start."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from chassis.environment import SettingsError
from functions.rank_items.settings import Settings
from offline.attachment import AttachError, attach, require_blank, write_attached
from recrank.artefact import ENCODER, RANKER, Artefact, ArtefactError, derive_version, read_artefact
from recrank.encoder import FEATURES
from recrank.own_models import open_model, open_own_models
from recsys.declaration.reader import DEFAULT, DeclarationError, parse_declaration
from recsys.declaration.types import Declaration
from tests.ranking.test_mixture import make_blended, make_queries
from topk.item_table import F32, I64

COLUMNS = ["popularity", "blend"]
LENGTH, DIMENSIONS = 8, 6

OPEN_NO_MODEL = """
from recrank.artefact import ArtefactError
from recrank.onnx_model import OnnxModel
try:
    OnnxModel(b"no model", name="ranker.onnx", provider="cpu")
except ArtefactError as error:
    print(error)
"""


class Popular:
    """A ranker: sorts by popularity."""

    names = ("popularity",)

    def __init__(self, content: bytes) -> None:
        self.weight = np.float32(content or b"1")

    def score(self, features: F32, counts: I64) -> F32:
        return features[:, 0] * self.weight


class Nan(Popular):
    """A ranker whose scores are no numbers."""

    def score(self, features: F32, counts: I64) -> F32:
        return np.full(len(features), np.nan, np.float32)


class Unknown(Popular):
    """A ranker that reads a column that no model has."""

    names = ("weather",)


class Nameless(Popular):
    """A ranker whose columns are no tuple."""

    names = "blend"  # type: ignore[assignment]


class Newest:
    """An encoder: the vector depends on the newest item and the age group alone."""

    def __init__(self, content: bytes) -> None:
        self.seen: list[I64] = []

    def encode(self, history: I64, features: F32) -> F32:
        self.seen.append(history)
        assert history.shape == (1, LENGTH)
        assert features.shape == (1, len(FEATURES))
        return np.eye(DIMENSIONS, dtype=np.float32)[history[:, 0] % DIMENSIONS]


def make_onnx_ranker(columns: int = 2, *, weights: tuple[float, ...] = (1.0, 0.5), batch: str | int = "rows") -> bytes:
    """Return an ONNX file that weighs its columns."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["columns", "weights"], ["scores"])],
        "ranker",
        [helper.make_tensor_value_info("columns", TensorProto.FLOAT, [batch, columns])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 1])],
        [numpy_helper.from_array(np.array(weights, np.float32)[:, None], "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def declare(text: str) -> Declaration:
    return parse_declaration(f"{DEFAULT.read_text('utf-8')}\n{text}", "recsys.toml")


def onnx_ranker(*columns: str) -> str:
    return f'[ranker]\nkind = "onnx"\npath = "ranker.onnx"\ninputs = {list(columns or COLUMNS)}\n'


def python_model(part: str, class_: str, *more: str) -> str:
    return "\n".join([f"[{part}]", 'kind = "python"', f'class = "{__name__}:{class_}"', *more, ""])


def make_attached(folder: Path, text: str, **files: bytes) -> Artefact:
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    return attach(make_blended(), declare(text), folder=folder)


def test_an_onnx_ranker_scores_the_shortlist(tmp_path):
    """Scores are the file's sums of its declared columns, and a batch answers as its requests alone, bit for bit."""
    model = open_model(make_attached(tmp_path, onnx_ranker(), ranker_onnx=make_onnx_ranker()))
    queries = make_queries(20)
    rows, counts, columns = model.shortlists(queries, COLUMNS)
    ranked = model.rank(queries)
    wanted = columns @ np.array([1.0, 0.5], np.float32)
    for ranking, part in zip(ranked, np.split(wanted, np.cumsum(counts)[:-1]), strict=True):
        np.testing.assert_allclose(ranking.scores, np.sort(part)[::-1][: len(ranking.scores)], rtol=1e-6)
    assert ranked == [model.rank([query])[0] for query in queries]
    assert rows.size == counts.sum()


def test_a_python_ranker_gets_the_content_of_its_file(tmp_path):
    """A class is constructed with the bytes of the artefact's file, and empty bytes without one."""
    (tmp_path / "weight").write_bytes(b"-1")
    plain = open_model(make_attached(tmp_path, python_model("ranker", "Popular")))
    negative = open_model(make_attached(tmp_path, python_model("ranker", "Popular", 'path = "weight"')))
    one, other = (model.rank(make_queries(5))[0] for model in (plain, negative))
    assert one.scores == sorted(one.scores, reverse=True)
    assert max(one.scores) > 0 >= max(other.scores)


def test_an_encoder_brings_the_vectors_of_its_items(tmp_path):
    """The best items are those whose vectors have the largest product with the encoder's, in batches as alone."""
    artefact = make_blended()
    vectors = np.random.default_rng(0).normal(size=(len(artefact.items), DIMENSIONS)).astype(np.float32)
    np.save(tmp_path / "items.npy", vectors)
    text = python_model("encoder", "Newest", 'items = "items.npy"', f"history = {LENGTH}")
    attached = make_attached(tmp_path, text)
    model = open_model(attached)
    queries = make_queries(20)
    assert model.rank(queries) == [model.rank([query])[0] for query in queries]
    query = next(each for each in queries if each.history and model.row_of(each.history[0]) is not None)
    rows, _, columns = model.shortlists([query], ["factors"])
    newest = model.row_of(query.history[0])
    assert newest is not None
    products = vectors[rows, newest % DIMENSIONS]
    np.testing.assert_allclose(columns[:, 0], products / products.max(), rtol=1e-2, atol=1e-3)


def test_items_that_arrived_later_are_left_out_of_the_history_of_an_encoder(tmp_path):
    """An encoder knows the rows of its training alone."""
    artefact = make_blended()
    np.save(tmp_path / "items.npy", np.ones((len(artefact.items), DIMENSIONS), np.float32))
    text = python_model("encoder", "Newest", 'items = "items.npy"', f"history = {LENGTH}")
    _, encoder = open_own_models(make_attached(tmp_path, text))
    assert encoder is not None
    from recsys.features import UNKNOWN_FEATURES
    from topk.row_lists import RowLists

    rows = len(artefact.items)
    encoder.vectors(RowLists.of([[rows, 3, rows + 1, 2]]), [UNKNOWN_FEATURES])
    (seen,) = encoder.model.seen  # type: ignore[attr-defined]
    assert seen.tolist() == [[3, 2, *[-1] * (LENGTH - 2)]]


@pytest.mark.parametrize(
    ("text", "content", "message"),
    [
        (
            onnx_ranker("blend"),
            make_onnx_ranker,
            r"input 'columns' is tensor\(float\)\[\*, 2\], and .* tensor\(float\)\[\*, 1\]",
        ),
        (
            onnx_ranker("blend", "weather"),
            make_onnx_ranker,
            "columns that the model does not have: weather; it has blend,",
        ),
        (
            onnx_ranker(),
            lambda: make_onnx_ranker(batch=1),
            r"is tensor\(float\)\[1, 2\], and the declaration gives it tensor\(float\)\[\*, 2\]",
        ),
        (onnx_ranker(), lambda: b"no model", "ranker.model: ONNX Runtime cannot load it"),
        (python_model("ranker", "Unknown"), None, "columns that the model does not have: weather"),
        (python_model("ranker", "Nan"), None, "the model cannot rank: the ranker returned scores that are not finite"),
        (python_model("ranker", "Missing"), None, "class .*:Missing: cannot be used"),
        (python_model("ranker", "Newest"), None, "must be a class with a method score"),
        (python_model("ranker", "Nameless"), None, "names must be a tuple of columns, not 'blend'"),
    ],
)
def test_a_ranker_that_does_not_fit_is_refused_at_the_start(tmp_path, text, content, message):
    """The message says in one sentence what differs from the declaration."""
    files = {"ranker_onnx": content()} if content else {}
    with pytest.raises(ArtefactError, match=message) as refused:
        open_model(make_attached(tmp_path, text, **files))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("class_", ["subprocess:Popen", "os:system", "pathlib:Path"])
def test_an_artefact_cannot_call_what_is_no_model(tmp_path, class_):
    """Everyone who may write an artefact names its class and its file, so only classes of models are called."""
    (tmp_path / "command").write_bytes(f"touch {tmp_path}/ran".encode())
    text = f'[ranker]\nkind = "python"\nclass = "{class_}"\npath = "command"\n'
    with pytest.raises(ArtefactError, match="must be a class with a method score"):
        open_model(make_attached(tmp_path, text))
    assert not (tmp_path / "ran").exists()


def test_an_attached_class_gives_another_version(tmp_path):
    """The class is in no file, but another model has another version: answers, events and rollouts tell them apart."""
    texts = ["", python_model("ranker", "Weighted"), python_model("ranker", "Nan"), onnx_ranker()]
    versions = [
        derive_version({"arrays": "1"}, parse_declaration(f"[events.view]\nweight = 1\n{text}", "own.toml"))
        for text in texts
    ]
    assert versions[0] == derive_version({"arrays": "1"})
    assert len({*versions}) == len(texts)


def test_the_files_belong_to_the_artefact(tmp_path):
    """The manifest has the hash of the ranker's file, other content gives another version, and a changed file is refused."""
    versions = []
    for number, weights in enumerate([(1.0, 0.5), (1.0, 0.25)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        attached = make_attached(folder, onnx_ranker(), ranker_onnx=make_onnx_ranker(weights=weights))
        versions.append(write_attached(attached, folder / "model").version)
    assert len(set(versions)) == 2
    stored = read_artefact(tmp_path / "0/model")
    assert stored.files == {RANKER: make_onnx_ranker()}
    assert stored.manifest.version == versions[0]
    assert open_model(stored).rank(make_queries(3)) == open_model(
        make_attached(tmp_path, onnx_ranker(), ranker_onnx=make_onnx_ranker())
    ).rank(make_queries(3))
    (tmp_path / "0/model" / RANKER).write_bytes(make_onnx_ranker(weights=(0.0, 1.0)))
    with pytest.raises(ArtefactError, match="ranker.model: its SHA-256 is not the manifest's"):
        read_artefact(tmp_path / "0/model")
    (tmp_path / "0/model" / RANKER).unlink()
    with pytest.raises(ArtefactError, match="ranker.model: No such file"):
        read_artefact(tmp_path / "0/model")


def test_an_artefact_without_its_declared_file_is_refused(tmp_path):
    """A declaration that names a file needs it in the artefact."""
    attached = make_attached(tmp_path, onnx_ranker(), ranker_onnx=make_onnx_ranker())
    with pytest.raises(ArtefactError, match=r"names ranker.onnx, and the model has no ranker.model"):
        open_model(msgspec.structs.replace(attached, files={}))


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has an NVIDIA GPU")  # noqa: PTH110
def test_an_instance_without_a_gpu_refuses_to_use_one(tmp_path):
    """With EXECUTION_PROVIDER=cuda, a missing GPU, and a model that would not use one, end the start."""
    attached = make_attached(tmp_path, onnx_ranker(), ranker_onnx=make_onnx_ranker())
    with pytest.raises(ArtefactError, match="EXECUTION_PROVIDER=cuda: .*GPU"):
        open_model(attached, provider="cuda")
    with pytest.raises(ArtefactError, match="EXECUTION_PROVIDER=cuda: the model has no ONNX file"):
        open_model(make_blended(), provider="cuda")
    with pytest.raises(SettingsError, match="EXECUTION_PROVIDER must be cpu or cuda, not 'tpu'"):
        Settings.from_env({"MODEL_PATH": "/models", "EXECUTION_PROVIDER": "tpu"})


def test_item_vectors_that_do_not_fit_are_refused(tmp_path):
    """The vectors are a matrix of finite float32 numbers with a row for each item."""
    text = python_model("encoder", "Newest", 'items = "items.npy"')
    items = len(make_blended().items)
    with pytest.raises(AttachError, match="items.npy: cannot be read as a .npy file: No such file"):
        make_attached(tmp_path, text)
    faults: list[tuple[np.ndarray, str]] = [
        (np.ones((items - 1, 3), np.float32), f"has {items - 1} rows for the {items} items"),
        (np.ones((items, 3)), "must hold a matrix of float32"),
        (np.full((items, 3), np.nan, np.float32), "must hold finite numbers"),
        (np.array([{}], object), "cannot be read as a .npy file"),
    ]
    for array, message in faults:
        np.save(tmp_path / "items.npy", array, allow_pickle=True)
        with pytest.raises(AttachError, match=message):
            make_attached(tmp_path, text)


def test_a_model_with_own_parts_is_not_retrained_without_them(tmp_path):
    """A retraining would lose the ranker; and an encoder's vectors cannot serve without it."""
    np.save(tmp_path / "items.npy", np.ones((len(make_blended().items), DIMENSIONS), np.float32))
    encoder = make_attached(tmp_path, python_model("encoder", "Newest", 'items = "items.npy"'))
    assert ENCODER not in encoder.files
    with pytest.raises(ArtefactError, match="has an attached ranker or encoder, which this training cannot make"):
        require_blank(encoder)
    require_blank(make_blended())
    with pytest.raises(AttachError, match="the vectors of the model belong to its encoder"):
        attach(encoder, declare(python_model("ranker", "Popular")), folder=tmp_path)
    with pytest.raises(AttachError, match="names no ranker and no encoder"):
        attach(make_blended(), declare(""), folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[ranker]\nkind = "onnx"\ninputs = ["blend"]', r"ranker.path must name the ONNX file"),
        ('[ranker]\nkind = "onnx"\npath = "a.onnx"', r"ranker.inputs must name the columns"),
        ('[ranker]\nkind = "python"', r"ranker.class must be a module and a class"),
        ('[ranker]\nkind = "python"\nclass = "no class"', r"ranker.class"),
        ('[encoder]\nkind = "onnx"\npath = "a"\nitems = "i"\nclass = "a:B"', r"encoder.class must be absent"),
        ('[ranker]\nkind = "trees"', r"ranker.kind"),
    ],
)
def test_faults_of_a_declared_model_have_their_lines(text, fault):
    """A declaration reports what a model lacks."""
    with pytest.raises(DeclarationError, match=rf"recsys.toml:\d+: {fault}"):
        declare(text)


def test_a_declaration_without_own_models_keeps_its_digest():
    """Artefacts and stores of earlier declarations stay readable, and own models change the digest."""
    plain = declare("")
    assert b"ranker" not in plain.encode()
    assert declare(onnx_ranker()).digest != plain.digest == declare(onnx_ranker()).without_own_models().digest
    assert parse_declaration(declare(onnx_ranker()).encode().decode(), "kept.json") == declare(onnx_ranker())


def test_onnx_runtime_records_nothing_about_its_user(tmp_path: Path) -> None:
    """ONNX Runtime writes no identifier and no events into the home directory, from where it would send them."""
    # ONNX Runtime records nothing on a machine of continuous integration, which sets CI.
    kept = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("ORT_")}
    environment = {**kept, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", OPEN_NO_MODEL], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("ranker.onnx: ONNX Runtime cannot load it")
    assert list(tmp_path.iterdir()) == []
