"""The wheel of the project."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from recsys import __version__
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.may_block

ROOT = Path(__file__).parents[2]
PACKAGES = ("chassis", "topk", "recsys", "recstore", "recrank", "kubeyaml", "localkn", "knbroker", "kndashboard")


def test_the_wheel_installs_typed_packages_of_this_version(tmp_path):
    """The wheel holds every package with its types and data, and nothing that belongs to the repository alone."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=LIMIT_S)
    (wheel,) = tmp_path.glob("*.whl")
    assert __version__ in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    tops = {name.partition("/")[0] for name in names}
    assert tops == {*PACKAGES, f"recsys_knative-{__version__}.dist-info"}
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    program = f"import {', '.join(PACKAGES)}; print(recsys.__file__, recsys.__version__)"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT_S,
    )
    assert result.stdout.split() == [str(tmp_path / "site/recsys/__init__.py"), __version__]
