"""Mutations of the model's files, with a manifest that vouches for them."""

import json
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import strategies as st

from chassis.server.service import StartError
from recrank.artefact import ARRAYS, ITEMS, MANIFEST, ArtefactError
from tests.hostile.conftest import Figure
from tests.hostile.fuzz.doors import DOORS
from tests.hostile.fuzz.mutations import Draw, damaged, documents
from tests.hostile.fuzz.rounds import make_rounds
from tests.hostile.test_artefacts import load, valid, vouch  # noqa: F401 - a fixture, and two functions

pytestmark = [pytest.mark.may_block, pytest.mark.timeout(600)]

MOST_GROWTH = 1.10


@st.composite
def files(draw: Draw, folder: Path) -> tuple[str, bytes]:
    """Draw a file of *folder* and its mutated content."""
    name = draw(st.sampled_from([MANIFEST, ITEMS, ARRAYS]))
    content = (folder / name).read_bytes()
    if name != ARRAYS and draw(st.booleans()):
        document: Any = json.loads(content)
        return name, draw(documents([document[:3] if name == ITEMS else document]))
    return name, draw(damaged(content))


def test_mutated_models_load_or_are_refused(
    valid: Path,  # noqa: F811 - the fixture that is imported
    tmp_path: Path,
    request: pytest.FixtureRequest,
    figure: Figure,
) -> None:
    """The model loads, or one short sentence says why it does not; the reader keeps no memory."""
    tried = 0

    def attempt(mutation: tuple[str, bytes]) -> None:
        nonlocal tried
        tried += 1
        folder = shutil.copytree(valid, tmp_path / "model", dirs_exist_ok=True)
        name, content = mutation
        if name == MANIFEST:
            (folder / name).write_bytes(content)
        else:
            vouch(folder, name, content)
        try:
            load(folder)
        except (ArtefactError, StartError) as error:
            assert "\n" not in str(error)
            assert 10 < len(str(error)) < 2000, error

    rounds = make_rounds(request, "mutated_models", tests=len(DOORS) + 1)
    rounds.run(attempt, files(valid), share=0.3)
    before = psutil.Process().memory_info().rss
    rounds.run(attempt, files(valid), share=0.7)
    growth = psutil.Process().memory_info().rss / before
    figure("fuzz: mutated models read", tried, "models")
    figure("fuzz: growth of the reader under mutated models", (growth - 1) * 100, "%")
    assert growth <= MOST_GROWTH
