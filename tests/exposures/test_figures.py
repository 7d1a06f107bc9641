"""The figures of an exposure log, computed and printed."""

import asyncio
import json
import os
from contextlib import aclosing
from pathlib import Path

import pytest

from offline.state import StateDirectory
from recrank.artefact import MANIFEST, read_artefact
from recstore.exposures.figures import ANY_MODEL, ArtefactFacts, Figures, Tally, compute_figures
from recstore.exposures.records import Action, Entry, Exposure, ExposureOutcome, ItemOutcome, ShownItem
from recstore.exposures.urls import open_exposures
from tests.demo import DemoState
from tools.cli.verbs import main

pytestmark = pytest.mark.may_block

DAY_US = 86_400_000_000


def outcome(user: str, items: dict[str, tuple[str, ...]], *, day: int = 0) -> ExposureOutcome:
    listed = tuple(ItemOutcome(item, place, 1.0, kinds) for place, (item, kinds) in enumerate(items.items(), 1))
    return ExposureOutcome(f"{user}{day}", user, day * DAY_US, "ials", "abc", "colours", "red", listed)


def test_the_figures_are_shares_of_answers_and_items():
    """Worked by hand: four answers to two users, of five items of which two are new."""
    tally = Tally(clicks=frozenset({"click", "purchase"}), purchases=frozenset({"purchase"}))
    for each in [
        outcome("ann", {"a": ("click", "click"), "b": ("purchase",)}),
        outcome("ann", {"a": (), "c": ("view",)}, day=2),
        outcome("bob", {"d": ("click",), "e": ()}, day=4),
        outcome("bob", {"a": (), "b": ()}, day=6),
    ]:
        tally.add(each)
    key = ("ials", "abc", "colours", "red")
    facts = ArtefactFacts(items=10, learned=frozenset("abc"), written_us=-DAY_US)
    assert tally.figures(key, facts) == Figures(
        *key, exposures=4, users=2, items=5, click_through=0.5, conversion=0.25, coverage=0.5, new_items=0.25,
        staleness_s=4 * 86_400.0,
    )  # fmt: skip
    unknown = tally.figures(key, None)
    assert (unknown.coverage, unknown.new_items, unknown.staleness_s) == (None, None, None)
    assert unknown.click_through == 0.5


def test_the_arms_of_an_experiment_stand_together():
    """Answers that no model ranked have their own row; the rows are ordered by experiment and arm."""
    tally = Tally(clicks=frozenset(), purchases=frozenset())
    tally.add(outcome("ann", {}))
    keys = [("ials", "2", "colours", "red"), (None, None, None, None), ("ials", "1", "colours", "blue")]
    rows = compute_figures(dict.fromkeys(keys, tally), lambda _: None)
    assert [(each.model, each.arm) for each in rows] == [(ANY_MODEL, None), ("ials", "blue"), ("ials", "red")]


@pytest.fixture
def shown(demo_state: DemoState, tmp_path: Path) -> Path:
    """Return a state directory whose store holds three exposures of its model, one of them clicked."""
    demo_state.copy_to(tmp_path)
    state = StateDirectory(tmp_path)
    current = state.require_current()
    folder = state.model_path(current)
    os.utime(folder / MANIFEST, (1_800_000_000, 1_800_000_000))
    artefact = read_artefact(folder)
    items = [item.item_id for item in artefact.items[:4]]

    async def fill() -> None:
        async with aclosing(open_exposures(state.store_url(current))) as log:
            entries: list[Entry] = [
                Exposure(
                    f"x{number}",
                    f"user_{number}",
                    (1_800_000_000 + 7200) * 1_000_000,
                    (ShownItem(items[0], 1), ShownItem(items[number], 2)),
                    artefact.manifest.name,
                    artefact.manifest.version,
                )
                for number in (1, 2, 3)
            ]
            # More than an hour after the exposure, and less than a day.
            entries.append(Action("a" * 32, "user_1", (1_800_000_000 + 14_400) * 1_000_000, "purchase", items[1]))
            await log.note(entries)

    asyncio.run(fill())
    return tmp_path


def test_the_report_prints_the_figures(shown, capsys):
    """The verb prints a table, or the same figures as JSON; the window decides which actions count."""
    assert main(["experiments", "report", "--state-dir", str(shown), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["figures"]
    assert (row["exposures"], row["users"], row["items"], row["coverage"]) == (3, 3, 4, 0.004)
    assert (row["click_through"], row["conversion"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (row["new_items"], row["staleness_s"]) == (0, 7200)
    assert main(["experiments", "report", "--state-dir", str(shown), "--window", "1h", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"][0]["click_through"] == 0
    assert main(["experiments", "report", "--state-dir", str(shown)]) == 0
    title, line = capsys.readouterr().out.splitlines()
    assert title.split()[:3] == ["arm", "model", "exposures"]
    assert "33.33%" in line
    assert line.endswith("2.0 h")


def test_a_report_without_exposures_says_what_to_do(demo_state, capsys):
    """A store without exposures is an error that names the option, and an empty list in JSON."""
    assert main(["experiments", "report", "--state-dir", str(demo_state.folder)]) == 1
    assert "up --exposures" in capsys.readouterr().err
    assert main(["experiments", "report", "--state-dir", str(demo_state.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"figures": [], "analyses": [], "health": {}}
