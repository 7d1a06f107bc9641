"""The images of the functions, built with buildah and run without root privileges."""

import os

import pytest

from tests.demo import DemoState
from tools.cli.verbs import main
from tools.images import prove

pytestmark = [pytest.mark.scenario, pytest.mark.may_block, pytest.mark.timeout(600)]


@pytest.mark.skipif(prove.missing() is not None, reason=str(prove.missing()))
def test_the_images_answer_together_and_contain_nothing_that_helps_an_intruder(
    demo_state: DemoState, monkeypatch, capfd
):
    """Every image starts with its own packages alone, and the fused function answers as the three others do."""
    # This driver needs no kernel support, so it also works inside containers.
    monkeypatch.setenv("STORAGE_DRIVER", os.environ.get("STORAGE_DRIVER", "vfs"))
    assert main(["prove-images", "--state-dir", str(demo_state.folder)]) == 0
    assert capfd.readouterr().out.count("   holds\n") == len(prove.FUNCTIONS) + 1
