"""
Open the models of a team's own that an artefact declares: a ranker and a user encoder.

An ONNX file is part of the artefact. A Python class is part of the program, because an artefact that holds code would run
the code of everyone who may write to its bucket; the file that the class reads is part of the artefact.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recrank.artefact import ENCODER, RANKER, Artefact, ArtefactError
from recrank.encoder import FEATURES, EncoderError, EncoderModel, Padded, UserEncoder
from recrank.model import RankingModel
from recrank.onnx_model import OnnxModel, Provider, Tensor
from recrank.ranker import Ranker
from recsys.declaration.classes import import_class
from recsys.declaration.types import OwnEncoder, OwnModel, OwnRanker
from topk.item_table import F32, I64

_HISTORY_INPUT, _FEATURES_INPUT = "history", "features"


class RankerError(Exception):
    """A team's ranker returned no usable scores."""


@dataclass(frozen=True, slots=True)
class OnnxRanker:
    """
    A ranker in an ONNX file.

    Attributes:
        names: The columns of its input.
        model: The file.
        pool: Scores several users at a time; None for one after another.
        together: Score a batch in one call. Matrix products then have other shapes in every batch, and other last bits.
    """

    names: tuple[str, ...]
    model: OnnxModel
    pool: Executor | None = None
    together: bool = False

    def score(self, features: F32, counts: I64) -> F32:
        """Score the candidates of each user alone, so that they have the same bits in every batch; or all in one call."""
        parts = [features] if self.together else np.split(features, np.cumsum(counts)[:-1])
        each: Callable[..., Iterable[F32]] = self.pool.map if self.pool and len(parts) > 1 else map
        return np.concatenate(list(each(self._score, parts)))

    def _score(self, features: F32) -> F32:
        (name,) = self.model.inputs
        return self.model.run({name: features}).reshape(-1) if len(features) else np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class CheckedRanker:
    """A ranker whose answers are checked. NaN would put an item at an arbitrary place."""

    ranker: Ranker
    names: tuple[str, ...]

    def score(self, features: F32, counts: I64) -> F32:
        """
        Return the scores of the ranker.

        Raises:
            RankerError: the ranker failed, or the scores have another shape, or are not finite.
        """
        try:
            scores = np.asarray(self.ranker.score(features, counts), np.float32)
        except Exception as error:
            # The code of a team may raise anything.
            raise RankerError(f"the ranker failed: {error!r}") from error
        if scores.shape != (len(features),):
            raise RankerError(f"the ranker returned the shape {scores.shape} for {len(features)} candidates")
        if not np.isfinite(scores).all():
            raise RankerError("the ranker returned scores that are not finite")
        return scores


@dataclass(frozen=True, slots=True)
class OnnxEncoder:
    """A user encoder in an ONNX file."""

    model: OnnxModel

    def encode(self, history: I64, features: F32) -> NDArray[Any]:
        """Return the vectors of users; see `EncoderModel`."""
        return self.model.run({_HISTORY_INPUT: history, _FEATURES_INPUT: features})


def open_own_models(
    artefact: Artefact, *, provider: Provider = "cpu", pool: Executor | None = None
) -> tuple[Ranker | None, UserEncoder | None]:
    """
    Open the ranker and the user encoder that *artefact* declares, if any.

    Args:
        artefact: A verified artefact.
        provider: The device that runs ONNX files.
        pool: Scores several users at a time.

    Raises:
        ArtefactError: a file or a class is missing, or does not fit the declaration. With `cuda`, also if no GPU is
            found, or if no declared model is an ONNX file.
    """
    declared = artefact.declaration
    if provider == "cuda" and not any(each and each.kind == "onnx" for each in (declared.ranker, declared.encoder)):
        raise ArtefactError(
            "EXECUTION_PROVIDER=cuda: the model has no ONNX file, and nothing else in it uses a GPU; attach an ONNX "
            "ranker or encoder, or set EXECUTION_PROVIDER=cpu"
        )
    return (
        _open_ranker(declared.ranker, artefact, provider=provider, pool=pool) if declared.ranker else None,
        _open_encoder(declared.encoder, artefact, provider=provider) if declared.encoder else None,
    )


def open_model(
    artefact: Artefact, *, provider: Provider = "cpu", workers: int = 1, pool: Executor | None = None, probes: int = 0
) -> RankingModel:
    """
    Return the model of *artefact* with the models that it declares; see `RankingModel` and `open_own_models`.

    Raises:
        ArtefactError: the artefact or a declared model cannot be used.
    """
    ranker, encoder = open_own_models(artefact, provider=provider, pool=pool)
    try:
        return RankingModel(artefact, workers=workers, pool=pool, probes=probes, ranker=ranker, encoder=encoder)
    except (RankerError, EncoderError) as error:
        raise ArtefactError(f"the model cannot rank: {error}") from error


def _open_ranker(declared: OwnRanker, artefact: Artefact, *, provider: Provider, pool: Executor | None) -> Ranker:
    content = _content(declared, artefact, RANKER)
    if declared.kind == "python":
        made = _construct(declared, content, method="score")
        names = getattr(made, "names", None)
        if not isinstance(names, tuple) or not all(isinstance(each, str) for each in names):
            raise ArtefactError(f"class {declared.class_}: names must be a tuple of columns, not {names!r}")
        return CheckedRanker(made, names)
    names = tuple(declared.inputs)
    model = OnnxModel(content, name=RANKER, provider=provider)
    if len(model.inputs) != 1:
        raise ArtefactError(
            f"{RANKER}: has the inputs {', '.join(model.inputs)}, and must have 1, a matrix of all columns"
        )
    model.require_inputs({model.inputs[0]: Tensor("float", (None, len(names)))})
    model.require_output(Tensor("float", (None,)), Tensor("float", (None, 1)))
    return CheckedRanker(OnnxRanker(names, model, pool, together=provider == "cuda"), names)


def _open_encoder(declared: OwnEncoder, artefact: Artefact, *, provider: Provider) -> UserEncoder:
    content = _content(declared, artefact, ENCODER)
    known, dimensions = _shape_of_vectors(artefact)
    together = provider == "cuda" and declared.kind == "onnx"
    if declared.kind == "python":
        made: EncoderModel = _construct(declared, content, method="encode")
        return Padded(made, dimensions, known, declared.history)
    model = OnnxModel(content, name=ENCODER, provider=provider)
    model.require_inputs(
        {
            _HISTORY_INPUT: Tensor("int64", (None, declared.history)),
            _FEATURES_INPUT: Tensor("float", (None, len(FEATURES))),
        }
    )
    model.require_output(Tensor("float", (None, dimensions)))
    return Padded(OnnxEncoder(model), dimensions, known, declared.history, together=together)


def _content(declared: OwnModel, artefact: Artefact, file: str) -> bytes:
    """Return the content of the model's file; empty for a class without one."""
    if not declared.path:
        return b""
    if file not in artefact.files:
        raise ArtefactError(
            f"the declaration names {declared.path}, and the model has no {file}; run ./run.sh model attach"
        )
    return artefact.files[file]


def _shape_of_vectors(artefact: Artefact) -> tuple[int, int]:
    shape = artefact.manifest.shapes.get("item_factors", [])
    if len(shape) != 2:
        raise ArtefactError(f"item_factors has the shape {shape}, and must be a matrix; train it again")
    return shape[0], shape[1]


def _construct(declared: OwnModel, content: bytes, *, method: str) -> Any:
    """Return an object of the declared class, which has *method* and gets the content of the model's file."""
    try:
        return import_class(declared.class_ or "", method=method)(content)
    except Exception as error:
        # The code of a team may raise anything.
        raise ArtefactError(f"class {declared.class_}: cannot be used: {error!r}") from error
