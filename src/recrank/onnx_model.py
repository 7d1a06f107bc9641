"""
Run ONNX files with ONNX Runtime, on CPUs or on a GPU.

An ONNX file holds a graph of known operators, so loading one runs no code of its author. External data files are
refused, because the artefact would not cover them.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from recrank.artefact import ArtefactError

Provider = Literal["cpu", "cuda"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)

_PROVIDER_NAMES: Mapping[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_ERRORS_ONLY = 3


@dataclass(frozen=True, slots=True)
class Tensor:
    """
    The type and the shape that an input or an output must have.

    Attributes:
        type: `float` or `int64`.
        shape: Sizes of its dimensions; None for a dimension of any size.
    """

    type: str
    shape: tuple[int | None, ...]

    def admits(self, type_: str, shape: Sequence[Any]) -> bool:
        """Tell whether a tensor of an ONNX file has this type and shape; sizes that the file leaves open fit all."""
        if type_ != f"tensor({self.type})" or len(shape) != len(self.shape):
            return False
        sizes = zip(self.shape, shape, strict=True)
        return all(not isinstance(found, int) or found == wanted for wanted, found in sizes)

    def __str__(self) -> str:
        return _describe(f"tensor({self.type})", self.shape)


class OnnxModel:
    """
    A loaded ONNX file.

    Args:
        content: The file.
        name: Its name, for messages.
        provider: The device that runs it.

    Attributes:
        inputs: Names of its inputs.

    Raises:
        ArtefactError: ONNX Runtime is not installed, cannot read the file, or finds no GPU for `cuda`.
    """

    def __init__(self, content: bytes, *, name: str, provider: Provider) -> None:
        self._name = name
        self._session = _open_session(content, name, provider)
        self._inputs = {each.name: each for each in self._session.get_inputs()}
        self.inputs = tuple(self._inputs)
        outputs = self._session.get_outputs()
        if len(outputs) != 1:
            raise ArtefactError(f"{name}: has {len(outputs)} outputs ({_join(outputs)}), and must have 1")
        self._output = outputs[0]

    def require_inputs(self, wanted: Mapping[str, Tensor]) -> None:
        """
        Check that the inputs are those of *wanted*.

        Raises:
            ArtefactError: a name, a type or a shape differs.
        """
        for name, found in self._inputs.items():
            if name not in wanted:
                raise ArtefactError(f"{self._name}: has an input {name!r}; possible are {', '.join(wanted)}")
            if not wanted[name].admits(found.type, found.shape):
                raise ArtefactError(
                    f"{self._name}: input {name!r} is {_describe(found.type, found.shape)}, "
                    f"and the declaration gives it {wanted[name]}"
                )

    def require_output(self, *wanted: Tensor) -> None:
        """
        Check that the output is one of *wanted*. An output without a shape passes.

        Raises:
            ArtefactError: its type or its shape differs.
        """
        found = self._output
        if not any(each.admits(found.type, found.shape or each.shape) for each in wanted):
            raise ArtefactError(
                f"{self._name}: output {found.name!r} is {_describe(found.type, found.shape)}, "
                f"and must be {' or '.join(map(str, wanted))}"
            )

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the output for *feeds*, one array for each input; other arrays are ignored."""
        (found,) = self._session.run([self._output.name], {name: feeds[name] for name in self.inputs})
        return np.asarray(found)


def _open_session(content: bytes, name: str, provider: Provider) -> Any:
    # Otherwise the import writes an identifier of the machine into the home directory, and ONNX Runtime sends names and
    # hashes of models to its makers.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime  # noqa: PLC0415 - only instances with an ONNX file need this library
    except ImportError as error:
        raise ArtefactError(
            f"{name}: needs ONNX Runtime; run ./run.sh model check, which installs it, or build the image with LOCK=rank-items-onnx"
        ) from error
    wanted = _PROVIDER_NAMES[provider]
    if wanted not in onnxruntime.get_available_providers():
        raise ArtefactError(
            "EXECUTION_PROVIDER=cuda: this installation of ONNX Runtime cannot use a GPU; build the image "
            "with LOCK=rank-items-gpu, or set EXECUTION_PROVIDER=cpu"
        )
    if provider == "cuda":
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    # The callers distribute work over threads, and a sum within one thread has the same bits on every machine.
    options.intra_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    try:
        session = onnxruntime.InferenceSession(content, options, providers=[wanted])
    except Exception as error:
        # The errors of ONNX Runtime share no base class.
        raise ArtefactError(f"{name}: ONNX Runtime cannot load it: {_first_line(error)}") from error
    if session.get_providers()[0] != wanted:
        raise ArtefactError(
            "EXECUTION_PROVIDER=cuda: no GPU was found; run the instance on a node with an NVIDIA GPU, or set "
            "EXECUTION_PROVIDER=cpu"
        )
    return session


def _describe(type_: str, shape: Sequence[Any] | None) -> str:
    if not shape:
        return f"{type_} without a shape"
    return f"{type_}[{', '.join(str(size) if isinstance(size, int) else '*' for size in shape)}]"


def _join(tensors: Sequence[Any]) -> str:
    return ", ".join(each.name for each in tensors)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
