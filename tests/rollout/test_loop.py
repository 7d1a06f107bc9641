"""`./run.sh loop`: each round reads the store, and only a rollout that ends well makes a model current."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadtests.population import read_lines
from offline.state import StateDirectory
from offline.training import train
from recrank.artefact import read_artefact
from recrank.places import PlaceError
from tests.offline.tastes import choose_nothing, make_records, put_changed
from tools import loop


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateDirectory:
    choose_nothing(monkeypatch)
    return put_changed(tmp_path)


@pytest.fixture
def rolled(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[dict[str, Any]]]:
    """Let every rollout end with a status, and return the list of the rollouts."""

    def end_with(status: int) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []

        def roll_out(**options: Any) -> int:
            seen.append({**options, "asked": options["users"].read_text().split()})
            return status

        monkeypatch.setattr(loop, "roll_out", roll_out)
        return seen

    return end_with


def run(state: StateDirectory, *, fewest: int = 100, offer: Path | None = None, to: str | None = None) -> int:
    return loop.run(
        every=600,
        once=not offer,
        fewest=fewest,
        margin=0.05,
        step_duration=1,
        state_dir=state.folder,
        offer=offer,
        to=to,
    )


def test_a_new_model_is_rolled_out_to_users_of_the_store(state, rolled):
    """The rollout gets the model's folder and asks for users that exist; the model then is current."""
    seen = rolled(0)
    assert run(state) == 0
    (only,) = seen
    model = state.model_path(state.require_current())
    assert (only["service"], only["env"]) == ("rank-items", [f"MODEL_PATH={model}"])
    assert only["asked"][:2] == ["u000", "u001"]
    assert state.require_current().store == "stores/1-test.db"
    assert run(state) == 0
    assert len(seen) == 1


def test_a_model_that_serves_is_current_also_if_it_cannot_be_published(state, rolled, monkeypatch, capsys):
    """The object store is told last, so the next round improves on the model that serves."""

    def refuse(*_: object) -> None:
        raise PlaceError("no such bucket")

    monkeypatch.setattr(loop, "deliver", refuse)
    seen, before = rolled(0), state.require_current()
    assert run(state, to="s3://bucket/p") == 1
    assert "no such bucket" in capsys.readouterr().err
    assert state.require_current() != before
    assert seen[0]["env"] == [f"MODEL_PATH={state.model_path(state.require_current())}"]


@pytest.mark.parametrize(("status", "ends"), [(1, 1), (130, 130)])
def test_a_rollout_that_fails_keeps_the_current_model(state, rolled, capsys, status, ends):
    """A rollout that is rolled back or interrupted leaves the pointer."""
    before = state.require_current()
    rolled(status)
    assert run(state) == ends
    assert state.require_current() == before
    assert ("the report of the rollout says why" if status == 1 else "interrupted") in capsys.readouterr().err


def test_an_offered_model_is_rolled_out_if_it_may_serve(state, rolled, tmp_path, capsys):
    """The loop rolls out a copy of a good model and ends; it refuses an older model before the rollout."""
    seen = rolled(0)
    train(make_records(days=16, shift_day=8, until_day=12), items={}, folder=tmp_path / "elsewhere", dataset="test")
    assert run(state, offer=tmp_path / "elsewhere") == 0
    served = state.model_path(state.require_current())
    assert [each["env"] for each in seen] == [[f"MODEL_PATH={served}"]]
    assert read_artefact(served).manifest == read_artefact(tmp_path / "elsewhere").manifest
    train(make_records(days=7), items={}, folder=tmp_path / "old", dataset="test")
    assert run(state, offer=tmp_path / "old") == 1
    assert "the new model may not serve: it is old" in capsys.readouterr().err
    assert run(state, offer=tmp_path / "nothing") == 1
    assert "no model at" in capsys.readouterr().err
    assert (len(seen), state.model_path(state.require_current())) == (1, served)


def test_an_empty_state_directory_is_an_error(tmp_path, capsys):
    """Without a training, the loop says what to run first."""
    assert run(StateDirectory(tmp_path / "new")) == 1
    assert "nothing was trained here yet" in capsys.readouterr().err


def test_each_line_of_a_file_is_an_id_or_a_request(tmp_path):
    """Spaces, line separators of Unicode and the line ends of Windows are no part of the split."""
    path = tmp_path / "users.txt"
    path.write_bytes('\ufeffann\r\nben of the hill\n\n{"user_id":"\u2028"}\n'.encode())
    assert read_lines(path) == ["ann", "ben of the hill", '{"user_id":"\u2028"}']
