"""`evaluate --new-items`: hidden items, their first interactions, and what the models find of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from offline.evaluation.arrivals import AMONG_NEW, INTERACTIONS, LATER, PLACED, RETRAINED, WITHOUT, Arrivals
from offline.evaluation.studies import Data
from offline.interactions import Interactions
from offline.reading.lines import DataError, Row
from recrank.artefact import Item
from tools.cli.verbs import main

USERS, KINDS, OF_A_KIND = 90, 3, 30


def rows() -> list[Row]:
    """Return users who choose among the items of one kind; each user meets them in another order."""
    return [
        Row(
            f"u{user:02}", f"i{(user % KINDS) * OF_A_KIND + item}", 1.0, 1_000_000 * (1 + (item * 7 + user) % OF_A_KIND)
        )
        for user in range(USERS)
        for item in range(OF_A_KIND)
        if (user * 5 + item * 3) % 4
    ]


def items() -> dict[str, Item]:
    """Return all items with their kind as an attribute."""
    return {
        f"i{number}": Item(f"i{number}", attributes={"kind": (f"k{number // OF_A_KIND}",)})
        for number in range(KINDS * OF_A_KIND)
    }


def test_only_the_first_interactions_of_a_hidden_item_come_later():
    """Before, no user has a hidden item; after, at most five users have each, in the order of time."""
    data = Data(Interactions.of(rows()), items())
    arrivals = Arrivals.of(data, holdout="temporal")
    assert len(arrivals.hidden) == KINDS * OF_A_KIND // 10
    assert not arrivals.hidden & {item.item_id for record in arrivals.before for item in record.history}
    came = [(item.item_id, item.time_us) for record in arrivals.after for item in record.history]
    kept = {record.user_id: {item.item_id for item in record.history} for record in arrivals.after}
    for item_id in arrivals.hidden:
        times = sorted(time_us for each, time_us in came if each == item_id)
        training = sorted(
            row.time_us or 0
            for row in rows()
            if row.item_id == item_id and row.item_id not in arrivals.held.get(row.user_id, ())
        )
        assert times == training[:INTERACTIONS]
        assert not any(item_id in kept[user] for user, held in arrivals.held.items() if item_id in held)


def test_new_items_of_a_kind_are_found_by_their_attributes(tmp_path, capsys):
    """Items placed by their attributes are found as often as after a training; without them none is found."""
    report = evaluate(tmp_path, capsys, attributes=True)
    assert [row["model"] for row in report["rows"]] == [WITHOUT, PLACED, LATER, "refreshed", RETRAINED]
    sections = {section["panel"]: section["rows"] for section in report["by_length"]}
    found = {row["model"]: row["recall_20"]["mean"] for row in sections[AMONG_NEW]}
    assert found[WITHOUT] == 0
    assert found[PLACED] == report["recall_20_among_new_items"]
    # The nine hidden items fit into a list, so only their order shows the kinds. A random order has 0.47.
    assert next(row for row in sections[AMONG_NEW] if row["model"] == PLACED)["ndcg_10"]["mean"] > 0.6
    assert report["share_of_retrained"] == pytest.approx(found[LATER] / found[RETRAINED], abs=1e-4)
    assert report["share_of_known_items_kept"] > 0.9


def test_items_without_attributes_are_refused(tmp_path, capsys):
    """Nothing can be hidden if no item can be placed by its attributes."""
    with pytest.raises(DataError, match="give --items with attributes"):
        Arrivals.of(Data(Interactions.of(rows())), holdout="temporal")
    assert evaluate(tmp_path, capsys, attributes=False) is None


def evaluate(folder: Path, capsys: Any, *, attributes: bool) -> Any:
    """Return the JSON report of `evaluate --new-items`, or None if the command refuses the data."""
    interactions, described = folder / "interactions.csv", folder / "items.csv"
    interactions.write_text(
        "user_id,item_id,timestamp\n"
        + "\n".join(f"{row.user_id},{row.item_id},{(row.time_us or 0) // 1_000_000}" for row in rows())
    )
    described.write_text(
        "item_id,kind\n" + "\n".join(f"{each.item_id},{each.attributes['kind'][0]}" for each in items().values())
    )
    words = ["--items", str(described)] if attributes else []
    status = main(["evaluate", "--interactions", str(interactions), *words, "--new-items", "--json"])
    output = capsys.readouterr()
    if status:
        assert "give --items with attributes" in output.err
        return None
    return json.loads(output.out)
