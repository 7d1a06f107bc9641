"""The verb `evaluate` in process; tests/integration/test_evaluation.py runs it through servers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offline.evaluation.quality import Quality
from offline.evaluation.report import PanelEntry, Report, Section
from tests.trained import write_csv
from tools.cli.verbs import main


def run(*words: object) -> int:
    return main(["evaluate", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a file of users in three clusters, each with most of the items of the user's cluster."""
    rows = [
        f"u{user:02},i{(user % 3) * 30 + item},{1 + item % 3},{1_700_000_000 + 1000 * ((item * 7 + user) % 30)}"
        for user in range(60)
        for item in range(30)
        if (user * 5 + item * 3) % 4
    ]
    return write_csv(tmp_path_factory.mktemp("data") / "mine.csv", "user_id,item_id,weight,timestamp", rows)


def test_the_model_and_its_baselines_are_in_one_report(csv, capsys):
    """The JSON report has intervals for every row; the model finds the clusters, and popularity does not."""
    assert run("--interactions", csv, "--holdout", "random", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    rows = {row["model"]: row for row in report["rows"]}
    assert list(rows) == ["popularity", "item-kNN, cosine", "item-kNN, BM25", "RP3beta", "EASE", "ials"]
    assert rows["ials"]["recall_20"]["mean"] > 0.95
    assert rows["popularity"]["recall_20"]["mean"] < 0.6
    assert rows["popularity"]["recall_20"]["differs"]
    assert "needs the times" in report["skipped"]["sequential rules"]
    for row in rows.values():
        for figure in ("ndcg_10", "recall_20", "recall_20_reachable"):
            assert 0 <= row[figure]["low"] <= row[figure]["mean"] <= row[figure]["high"] <= 1
        assert 0 < row["coverage"] <= 1
    assert (report["holdout"], report["users"], report["items"], report["cut_histories"]) == ("random", 60, 90, 0)


def test_an_evaluation_is_reproducible(csv, capsys):
    """Two runs give the same figures except for durations, and another seed holds out other items."""

    def figures(*words: object) -> list[dict[str, object]]:
        assert run("--interactions", csv, "--holdout", "random", "--brief", "--json", *words) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        return [{key: value for key, value in row.items() if key != "training_s"} for row in rows]

    assert figures() == figures()
    assert figures() != figures("--seed", 1)


def test_splits_and_variants_are_evaluated(csv, capsys):
    """The figures are means over splits with their deviation, and variants of the model follow its row."""

    def rows(*words: object) -> dict[str, dict[str, Any]]:
        assert run("--interactions", csv, "--holdout", "random", "--json", *words) == 0
        return {row["model"]: row for row in json.loads(capsys.readouterr().out)["rows"]}

    one, two, both = rows("--brief"), rows("--brief", "--seed", 1), rows("--splits", 2, "--ablate")
    for name, row in one.items():
        means = [row["ndcg_10"]["mean"], two[name]["ndcg_10"]["mean"]]
        assert both[name]["ndcg_10"]["mean"] == pytest.approx(sum(means) / 2)
        assert both[name]["sd_over_splits"]["ndcg"] == pytest.approx(abs(means[0] - means[1]) / 2**0.5)
    assert {"plain iALS", "without attention weights", "64 factors", "without a prior"} <= set(both)
    # Data of this size gets 64 factors by default.
    assert both["64 factors"]["ndcg_10"]["mean"] == both["ials"]["ndcg_10"]["mean"]
    assert both["without popularity-aware negatives"]["ndcg_10"]["mean"] != both["ials"]["ndcg_10"]["mean"]
    assert run("--interactions", csv, "--splits", 2) == 1
    assert "one split only" in capsys.readouterr().err


def test_data_with_times_is_held_out_by_time(csv, capsys):
    """A temporal hold-out is the default when every row has a time, and the table names it."""
    assert run("--interactions", csv) == 0
    shown = capsys.readouterr().out
    assert "holdout temporal" in shown
    assert "| more " in shown
    header, rule, *rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert header.split("|")[1].strip() == "model"
    assert set(rule) == {"|", "-", " "}
    names = [row.split("|")[1].strip() for row in rows]
    assert names[:8] == [
        "popularity", "popularity, recent", "item-kNN, cosine", "item-kNN, BM25", "RP3beta", "EASE", "sequential rules",
        "ials",
    ]  # fmt: skip
    assert len({len(line) for line in [header, rule, *rows[:8]]}) == 1


def test_data_with_times_is_split_at_a_date_too(tmp_path, capsys):
    """The report has the date, the users known before it, unseen users by known items, and items new after the date."""
    rows = [
        f"u{user:02},i{'new' if n == 11 and user < 4 else (user % 3) * 20 + n},{1_700_000_000 + 90_000 * n + user}"
        for user in range(40)
        for n in range(13)
    ]
    path = write_csv(tmp_path / "dated.csv", "user_id,item_id,timestamp", rows)
    assert run("--interactions", path, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["calendar"]["date"], report["calendar"]["users"]) == ("2023-11-25", 40)
    assert [row["model"] for row in report["calendar"]["rows"]] == [row["model"] for row in report["rows"]]
    panels = {section["panel"]: section["users"] for section in report["by_length"]}
    assert panels == {"0": 8, "1": 8, "2": 8, "5": 8, "10": 8, "more": 8, "new items": 40}
    assert run("--interactions", path, "--brief", "--json") == 0
    assert {"calendar", "by_length"}.isdisjoint(json.loads(capsys.readouterr().out))


def test_a_model_without_a_result_in_one_panel_has_a_dash_there():
    """EASE is skipped for a training part with too many items; its column of the other panels stays in its place."""
    values = np.array([0.25, 0.75])
    quality = Quality(values, values, values, coverage=1.0, popularity_bias=1.0)
    few, many = (
        Section(panel, 2, PanelEntry.all_of([PanelEntry(name, quality) for name in names], reference="ials"))
        for panel, names in (("0", ("popularity", "ials")), ("new items", ("popularity", "EASE", "ials")))
    )
    shown = Report({}, "ials", few.entries, lengths=[few, many]).to_markdown()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if line.startswith("|")]
    assert cells[-4] == ["panel", "users", "popularity", "EASE", "ials"]
    assert cells[-2] == ["0", "2", "0.500 / 0.500", "-", "0.500 / 0.500"]
    assert cells[-1] == ["new items", "2", *["0.500 / 0.500"] * 3]


def test_columns_can_be_named_and_faulty_lines_left_out(csv, tmp_path, capsys):
    """The options of the file work as with train."""
    path = tmp_path / "named.csv"
    path.write_text(csv.read_text().replace("user_id,item_id", "uid,sku", 1) + "a faulty line\n")
    words = ("--interactions", path, "--brief", "--json")
    assert run(*words, "--map", "user=uid,item=sku") == 1
    assert run(*words, "--map", "user=uid,item=sku", "--skip-faults", 1) == 0
    captured = capsys.readouterr()
    assert "left out faulty lines: 1" in captured.err
    assert json.loads(captured.out)["users"] == 60


def test_an_evaluation_can_search_report_and_plot(csv, tmp_path, capsys):
    """The options write a report as a table and as JSON, and a picture that depends only on the figures."""
    words = ["--interactions", csv, "--holdout", "random", "--search", "--report", tmp_path / "r"]
    assert run(*words, "--plot", tmp_path / "a.svg") == 0
    shown = capsys.readouterr().out
    assert "ials, searched" in shown
    assert "skipped: sequential rules: needs the times" in shown
    assert (tmp_path / "r/evaluation.md").read_text() == shown
    assert len(json.loads((tmp_path / "r/evaluation.json").read_text())["rows"]) == 7
    picture = (tmp_path / "a.svg").read_text()
    assert "<svg" in picture
    assert "Date" not in picture


def test_invalid_input_is_an_error(tmp_path, csv, capsys):
    """Too little data, a missing file and a model trained otherwise are each reported in one sentence."""
    few = tmp_path / "few.csv"
    few.write_text("user_id,item_id\nu,a\nu,b\n")
    assert run("--interactions", few) == 1
    assert "nothing can be held out" in capsys.readouterr().err
    assert run("--interactions", tmp_path / "none.csv") == 1
    assert "No such file" in capsys.readouterr().err
    assert run("--interactions", csv, "--state-dir", tmp_path, "--via", "http://127.0.0.1:1") == 1
    assert "nothing was trained" in capsys.readouterr().err
    (tmp_path / "file").touch()
    for place in (("--report", tmp_path / "file"), ("--plot", tmp_path / "file/a.svg")):
        assert run(*place) == 1
        assert f"{tmp_path}/file: cannot be written: " in capsys.readouterr().err
    for words in (("--via", "http://127.0.0.1:1", "--search"), ("--splits", 0), ("--plot", "a.txt")):
        assert run("--interactions", csv, *words) == 2
