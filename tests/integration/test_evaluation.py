"""Evaluation through real servers: the served lists are the evaluated lists."""

import json
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from localkn.processes import free_port
from offline.evaluation import comparison
from offline.evaluation.baselines import BASELINES
from tests.running import Pipeline, running, running_pipeline
from tests.trained import model_of, store_of, write_csv
from tools.cli.verbs import main

pytestmark = pytest.mark.may_block


def served(folder: Path, **features: str) -> AbstractContextManager[Pipeline]:
    ranking = {"MODEL_PATH": str(model_of(folder))}
    return running_pipeline({"FEATURE_STORE_URL": store_of(folder), **features}, ranking)


def evaluate(folder: Path, url: str, *words: str) -> int:
    return main(["evaluate", "--state-dir", str(folder), "--holdout", "temporal", "--via", url, "--json", *words])


@pytest.fixture
def one_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with popularity alone; tests/offline/test_evaluate.py covers the other baselines, which take seconds."""
    monkeypatch.setattr(comparison, "BASELINES", BASELINES[:1])


def test_served_lists_equal_the_models(held_out, one_baseline, capsys):
    """A thousand demo users get the same items, order and scores over HTTP as from the model in process."""
    with served(held_out) as pipeline:
        assert evaluate(held_out, pipeline.recommend.url) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["users"] > 990
    assert report["differing_lists"] == 0
    inside, outside = report["rows"][-2:]
    assert (inside.pop("model"), outside.pop("model")) == ("ials, in process", "ials, served")
    for figure in ("ndcg_10", "recall_20", "recall_20_reachable"):
        assert outside[figure].pop("difference") == {"mean": 0, "low": 0, "high": 0}
        assert outside[figure].pop("differs") is False
    assert inside == outside
    assert outside["ndcg_10"]["low"] > report["rows"][0]["ndcg_10"]["high"]


def test_users_without_a_profile_get_the_same_lists(tmp_path, capsys):
    """A file of users and items alone, with weights between the stored steps and rules, gives equal lists too."""
    rows = [
        f"{user},{(user % 4) * 25 + item},{0.1 + item / 7}" for user in range(80) for item in range(user % 9, 25, 2)
    ]
    path = write_csv(tmp_path / "plain.csv", "user_id,item_id,weight", rows)
    declared = tmp_path / "recsys.toml"
    declared.write_text('[events]\nview.weight = 1\n[rules]\npins = ["3", "30"]\n')
    data = ["--interactions", str(path), "--state-dir", str(tmp_path / "s"), "--holdout", "random", "--seed", "4"]
    data += ["--declaration", str(declared)]
    assert main(["train", *data]) == 0
    capsys.readouterr()
    with served(tmp_path / "s") as pipeline:
        assert main(["evaluate", *data, "--via", pipeline.recommend.url, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["users"], report["differing_lists"]) == (80, 0)
    assert report["rows"][-1]["recall_20"]["mean"] > 0.95


def test_a_different_configuration_is_noticed(held_out, one_baseline, capsys):
    """With histories shorter than in training the lists differ, and the report counts them."""
    with served(held_out, HISTORY_LIMIT="5") as pipeline:
        assert evaluate(held_out, pipeline.recommend.url, "--most-users", "200") == 0
    assert json.loads(capsys.readouterr().out)["differing_lists"] > 100


def test_a_model_trained_on_the_held_out_part_is_refused(held_out, capsys):
    """The evaluation refuses a model that was trained for another hold-out before it sends a request."""
    assert evaluate(held_out, "http://127.0.0.1:1", "--holdout", "random") == 1
    assert "was not trained on this training part" in capsys.readouterr().err


def test_an_unavailable_pipeline_is_an_error(held_out, capsys):
    """The evaluation reports a pipeline that is missing or cannot recommend in one sentence."""
    port = free_port()
    assert evaluate(held_out, f"http://127.0.0.1:{port}") == 1
    assert "nothing answers" in capsys.readouterr().err
    env = {"EXTRACT_FEATURES_URL": f"http://127.0.0.1:{port}", "RANK_ITEMS_URL": f"http://127.0.0.1:{port}"}
    with running("recommend", env) as lonely:
        assert evaluate(held_out, lonely.url) == 1
    assert "answers 503" in capsys.readouterr().err
