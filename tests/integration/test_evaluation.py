"""Evaluating through real servers: what is served is what was evaluated."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from offline import train
from offline.evaluation.__main__ import main
from offline.state import StateDirectory
from tests.running import Running, running, take_port

pytestmark = [pytest.mark.may_block, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heldout")
    assert train.main(["--state-dir", str(folder), "--holdout", "temporal"]) == 0
    return folder


@contextmanager
def served(folder: Path, **features: str) -> Iterator[Running]:
    state = StateDirectory(folder)
    current = state.current()
    assert current is not None
    with ExitStack() as stack:
        first = stack.enter_context(
            running("extract_features", {"FEATURE_STORE_URL": state.store_url(current)} | features)
        )
        second = stack.enter_context(running("rank_items", {"MODEL_PATH": str(state.model_path(current))}))
        urls = {"EXTRACT_FEATURES_URL": first.url, "RANK_ITEMS_URL": second.url}
        yield stack.enter_context(running("recommend", urls))


def evaluate(folder: Path, url: str, *words: str) -> int:
    return main(["--state-dir", str(folder), "--holdout", "temporal", "--via", url, "--json", *words])


def test_every_list_is_the_one_of_the_model_in_process(held_out, capsys):
    """A thousand demo users with ages and sessions: the same items, order and scores through HTTP; no skew at all."""
    with served(held_out) as pipeline:
        assert evaluate(held_out, pipeline.url) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["users"] > 990
    assert report["differing_lists"] == 0
    inside, outside = report["rows"][-2:]
    assert (inside.pop("model"), outside.pop("model")) == ("ials, in process", "ials, served")
    assert inside == outside
    assert outside["ndcg_10"]["low"] > report["rows"][0]["ndcg_10"]["high"]


def test_users_without_a_profile_get_the_same_lists_too(tmp_path, capsys):
    """A file of users and items alone: no age, no session, no time; weights in between the steps they are kept in."""
    path = tmp_path / "plain.csv"
    rows = [
        f"{user},{(user % 4) * 25 + item},{0.1 + item / 7}" for user in range(80) for item in range(user % 9, 25, 2)
    ]
    path.write_text("user_id,item_id,weight\n" + "\n".join(rows) + "\n")
    data = ["--interactions", str(path), "--state-dir", str(tmp_path / "s"), "--holdout", "random", "--seed", "4"]
    assert train.main(data) == 0
    capsys.readouterr()
    with served(tmp_path / "s") as pipeline:
        assert main([*data, "--via", pipeline.url, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["users"], report["differing_lists"]) == (80, 0)
    assert report["rows"][-1]["recall_20"]["mean"] > 0.95


def test_a_pipeline_that_is_set_up_otherwise_is_noticed(held_out, capsys):
    """With histories cut shorter than training assumes, lists differ, and the report counts them."""
    with served(held_out, HISTORY_LIMIT="5") as pipeline:
        assert evaluate(held_out, pipeline.url) == 0
    assert json.loads(capsys.readouterr().out)["differing_lists"] > 500


def test_a_model_that_may_know_what_is_held_out_is_refused(held_out, capsys):
    """Another hold-out than the served model was trained for would measure memory; nothing is even asked."""
    assert evaluate(held_out, "http://127.0.0.1:1", "--holdout", "random") == 1
    assert "was not trained on this training part" in capsys.readouterr().err


def test_a_pipeline_that_does_not_answer_is_one_sentence(held_out, capsys):
    """Nothing there, or something that cannot recommend: said, not measured."""
    port = take_port()
    assert evaluate(held_out, f"http://127.0.0.1:{port}") == 1
    assert "nothing answers" in capsys.readouterr().err
    env = {"EXTRACT_FEATURES_URL": f"http://127.0.0.1:{port}", "RANK_ITEMS_URL": f"http://127.0.0.1:{port}"}
    with running("recommend", env) as lonely:
        assert evaluate(held_out, lonely.url) == 1
    assert "answers 503" in capsys.readouterr().err
