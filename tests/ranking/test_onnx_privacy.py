"""ONNX Runtime keeps to itself what it runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.may_block

PROGRAM = """
from recrank.artefact import ArtefactError
from recrank.onnx_model import OnnxModel
try:
    OnnxModel(b"no model", name="ranker.onnx", provider="cpu")
except ArtefactError as error:
    print(error)
"""


def test_onnx_runtime_records_nothing_about_its_user(tmp_path: Path) -> None:
    """ONNX Runtime writes no identifier and no events into the home directory, from where it would send them."""
    # ONNX Runtime records nothing on a machine of continuous integration, which sets CI.
    kept = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("ORT_")}
    environment = {**kept, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("ranker.onnx: ONNX Runtime cannot load it")
    assert list(tmp_path.iterdir()) == []
