"""The verb `evaluate`, in process; through servers in tests/integration/test_evaluation.py."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from offline.evaluation.__main__ import main


def run(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users of three clusters, each with most of the items of their own."""
    path = tmp_path_factory.mktemp("data") / "mine.csv"
    rows = [
        f"u{user:02},i{(user % 3) * 30 + item},{1 + item % 3},{1_700_000_000 + 1000 * ((item * 7 + user) % 30)}"
        for user in range(60)
        for item in range(30)
        if (user * 5 + item * 3) % 4
    ]
    path.write_text("user_id,item_id,weight,timestamp\n" + "\n".join(rows) + "\n")
    return path


def test_the_model_and_its_baselines_stand_in_one_table(csv, capsys):
    """JSON for machines, with intervals; the model finds the planted clusters, popularity does not."""
    assert run("--interactions", csv, "--holdout", "random", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    rows = {row["model"]: row for row in report["rows"]}
    assert list(rows) == ["popularity", "item-kNN, cosine", "item-kNN, BM25", "RP3beta", "ials"]
    assert rows["ials"]["recall_20"]["mean"] > 0.95
    assert rows["popularity"]["recall_20"]["mean"] < 0.6
    for row in rows.values():
        for figure in ("ndcg_10", "recall_20"):
            assert 0 <= row[figure]["low"] <= row[figure]["mean"] <= row[figure]["high"] <= 1
        assert 0 < row["coverage"] <= 1
    assert (report["holdout"], report["users"], report["items"], report["cut_histories"]) == ("random", 60, 90, 0)


def test_it_is_reproducible(csv, capsys):
    """Two runs give the same figures but for the seconds; another seed holds out other items."""

    def figures(*words: object) -> list[dict[str, object]]:
        assert run("--interactions", csv, "--holdout", "random", "--json", *words) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        return [{key: value for key, value in row.items() if key != "training_s"} for row in rows]

    assert figures() == figures()
    assert figures() != figures("--seed", 1)


def test_several_splits_and_variants(csv, capsys):
    """A user's figure is the mean over splits, the deviation over them stands beside; variants follow the model."""

    def rows(*words: object) -> dict[str, dict[str, Any]]:
        assert run("--interactions", csv, "--holdout", "random", "--json", *words) == 0
        return {row["model"]: row for row in json.loads(capsys.readouterr().out)["rows"]}

    one, two, both = rows(), rows("--seed", 1), rows("--splits", 2, "--ablate")
    for name, row in one.items():
        means = [row["ndcg_10"]["mean"], two[name]["ndcg_10"]["mean"]]
        assert both[name]["ndcg_10"]["mean"] == pytest.approx(sum(means) / 2)
        assert both[name]["sd_over_splits"]["ndcg"] == pytest.approx(abs(means[0] - means[1]) / 2**0.5)
    assert {"plain iALS", "without attention weights", "64 factors", "without a prior"} <= set(both)
    # 64 factors are what data of this size get anyway.
    assert both["64 factors"]["ndcg_10"] == both["ials"]["ndcg_10"]
    assert both["without popularity-aware negatives"]["ndcg_10"] != both["ials"]["ndcg_10"]
    assert run("--interactions", csv, "--splits", 2) == 1
    assert "one split only" in capsys.readouterr().err


def test_data_with_times_are_held_out_by_time(csv, capsys):
    """Temporal is the default where every row has a time; the table for people names it."""
    assert run("--interactions", csv) == 0
    shown = capsys.readouterr().out
    assert "holdout temporal" in shown
    header, rule, *rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert header.split("|")[1].strip() == "model"
    assert set(rule) == {"|", "-", " "}
    assert len(rows) == 5
    assert len({len(line) for line in [header, rule, *rows]}) == 1


def test_it_can_search_report_and_draw(csv, tmp_path, capsys):
    """A report as table and JSON, and a picture that is the same for the same figures."""
    words = ["--interactions", csv, "--holdout", "random", "--search", "--report", tmp_path / "r"]
    assert run(*words, "--plot", tmp_path / "a.svg") == 0
    shown = capsys.readouterr().out
    assert "ials, searched" in shown
    assert (tmp_path / "r/evaluation.md").read_text() == shown
    assert len(json.loads((tmp_path / "r/evaluation.json").read_text())["rows"]) == 6
    picture = (tmp_path / "a.svg").read_text()
    assert "<svg" in picture
    assert "Date" not in picture


def test_what_cannot_work_is_one_sentence(tmp_path, csv, capsys):
    """Too little data, a file that is not there, a pipeline that was not trained for this."""
    few = tmp_path / "few.csv"
    few.write_text("user_id,item_id\nu,a\nu,b\n")
    assert run("--interactions", few) == 1
    assert "nothing can be held out" in capsys.readouterr().err
    assert run("--interactions", tmp_path / "none.csv") == 1
    assert "No such file" in capsys.readouterr().err
    assert run("--interactions", csv, "--state-dir", tmp_path, "--via", "http://127.0.0.1:1") == 1
    assert "nothing was trained" in capsys.readouterr().err
    for words in (("--via", "http://127.0.0.1:1", "--search"), ("--splits", 0), ("--plot", "a.txt")):
        with pytest.raises(SystemExit):
            run("--interactions", csv, *words)


if LASTFM := os.environ.get("LASTFM"):  # a user_artists.dat of HetRec 2011, which may not be part of the project

    def test_lastfm_reaches_what_was_promised(capsys):
        """On the reference protocol the popularity row is exact, and the model well above the best library model."""
        assert run("--interactions", LASTFM, "--format", "lastfm", "--holdout", "random", "--json") == 0
        report = json.loads(capsys.readouterr().out)
        rows = {row["model"]: row for row in report["rows"]}
        assert report["users"] == 1877
        popular = rows["popularity"]
        assert (round(popular["ndcg_10"]["mean"], 4), round(popular["recall_20"]["mean"], 4)) == (0.0815, 0.1010)
        assert rows["ials"]["ndcg_10"]["mean"] >= 0.250
        assert rows["ials"]["recall_20"]["mean"] >= 0.285
