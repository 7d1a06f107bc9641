"""The images of the functions, built with buildah and run without root privileges."""

import os
from pathlib import Path

import pytest

from offline.state import Current, StateDirectory
from tests.demo import DemoState
from tools.cli.verbs import main
from tools.images import prove

pytestmark = [pytest.mark.may_block, pytest.mark.timeout(600)]


def test_the_images_get_the_model_that_the_pipeline_serves(tmp_path: Path, monkeypatch, capsys):
    """The directory may hold newer and older models. Without a current one, the error says what to run."""
    asked: list[Path] = []

    def note(_: str, *, model: Path) -> list[prove.ImageFinding]:
        asked.append(model)
        return []

    monkeypatch.setattr(prove, "missing", lambda: None)
    monkeypatch.setattr(prove, "prove", note)
    words = ["prove-images", "--base", "debian", "--state-dir", str(tmp_path)]
    assert main(words) == 1
    assert "nothing was trained here yet" in capsys.readouterr().err
    for name in ("9-old", "10-new"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "manifest.json").touch()
    state = StateDirectory(tmp_path)
    with state.locked():
        state.advance(Current("", "models/10-new", "test"))
    assert main(words) == 0
    assert asked == [tmp_path / "models/10-new"]


@pytest.mark.scenario
@pytest.mark.skipif(prove.missing() is not None, reason=str(prove.missing()))
def test_the_images_answer_together_and_contain_nothing_that_helps_an_intruder(
    demo_state: DemoState, monkeypatch, capfd
):
    """Every image starts with its own packages alone, and the fused function answers as the three others do."""
    # This driver needs no kernel support, so it also works inside containers.
    monkeypatch.setenv("STORAGE_DRIVER", os.environ.get("STORAGE_DRIVER", "vfs"))
    assert main(["prove-images", "--state-dir", str(demo_state.folder)]) == 0
    assert capfd.readouterr().out.count("   holds\n") == len(prove.FUNCTIONS) + 1
