"""The verb `train`: hold-outs, searches, and training on a store; test_state.py covers the import."""

from pathlib import Path

import msgspec
import pytest

from recrank.artefact import read_artefact
from recstore.sqlite import SqliteStore
from recsys.features import UNKNOWN_FEATURES
from recsys.records import HistoryItem, Interaction, UserRecord
from tests.trained import apply_events, artefact_of, in_store, records_of, run, store_of, train, write_csv


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    rows = [
        f"u{user:02},i{(user % 3) * 10 + item},{1 + item % 3},{1_700_000_000 + 1000 * item}"
        for user in range(30)
        for item in range(10)
        if (user + item) % 7
    ]
    return write_csv(tmp_path / "mine.csv", "user_id,item_id,weight,timestamp", rows)


class TestHoldingOut:
    """`train --holdout` prepares what `evaluate --via` needs."""

    def test_store_and_model_contain_the_training_part(self, tmp_path, csv, capsys):
        """The store and the model contain the training part only, and the manifest names the split."""
        assert train(tmp_path / "s", "--interactions", csv, "--holdout", "temporal") == 0
        assert "without a temporal fifth" in capsys.readouterr().out
        records = records_of(tmp_path / "s")
        assert train(tmp_path / "all", "--interactions", csv) == 0
        for record, whole in zip(records, records_of(tmp_path / "all"), strict=True):
            out = len(whole.history) // 5
            assert record.history == whole.history[out:]
            assert record.views == whole.views - out
        training = artefact_of(tmp_path / "s").manifest.training
        assert (training["holdout"], training["ties"]) == ("temporal", sum(len(each.history) for each in records))

    def test_weak_rows_can_be_excluded(self, tmp_path, csv):
        """`--min-weight` ignores rows with a lower weight."""
        assert train(tmp_path / "s", "--interactions", csv, "--min-weight", 2) == 0
        assert {item.weight for each in records_of(tmp_path / "s") for item in each.history} == {2, 3}
        assert artefact_of(tmp_path / "s").manifest.training["min_weight"] == 2

    def test_excluding_every_row_is_an_error(self, tmp_path, csv, capsys):
        """A minimum above every weight is reported in one sentence."""
        assert train(tmp_path / "s", "--interactions", csv, "--min-weight", 9) == 1
        assert "no interactions" in capsys.readouterr().err


class TestSearching:
    """`train --search` chooses settings for the data."""

    def test_a_search_is_recorded_and_reproducible(self, tmp_path, csv):
        """The manifest records trials, choice and validation scores, and the same data gives the same artefact."""
        for folder in ("one", "two"):
            assert train(tmp_path / folder, "--interactions", csv, "--search") == 0
        first, second = (artefact_of(tmp_path / folder).manifest for folder in ("one", "two"))
        assert first == second
        trials = first.training["search"]["trials"]
        assert [trial["parameter"] for trial in trials[:3]] == ["suggested", "ridge", "ridge"]
        assert first.metrics["validation_ndcg_10"] >= first.metrics["validation_ndcg_10_suggested"] > 0
        assert set(first.training["als"]) >= {"ridge", "unobserved_weight", "weight_exponent"}


class TestFromStore:
    """`train --from-store` trains on the events in the store."""

    def test_training_without_new_events_gives_the_same_model(self, tmp_path, csv, capsys):
        """The store holds the data of the current model, so training on it gives the same version."""
        titles = tmp_path / "titles.csv"
        titles.write_text("item_id,title,category\n" + "".join(f"i{n},Title {n},c{n // 10}\n" for n in range(30)))
        assert train(tmp_path, "--interactions", csv, "--items", titles) == 0
        before = artefact_of(tmp_path)
        assert train(tmp_path, "--from-store") == 0
        after = artefact_of(tmp_path)
        assert after.manifest.version == before.manifest.version
        assert after.manifest.training["fingerprint"] == before.manifest.training["fingerprint"]
        assert {item.title for item in after.items} == {f"Title {n}" for n in range(30)}
        assert after.items == before.items
        assert f"kn service update rank-items --env MODEL_PATH={tmp_path}/models/2-" in capsys.readouterr().out

    def test_events_are_trained_on(self, tmp_path, csv):
        """An item known only from events is in the next model, and the store stays in place."""
        assert train(tmp_path, "--interactions", csv) == 0
        before, url = artefact_of(tmp_path).manifest.version, store_of(tmp_path)
        new = [Interaction("/s", f"{n}", f"u{n:02}", "purchase", 1_800_000_000_000_000, "brand-new") for n in range(9)]
        apply_events(url, *new)
        assert train(tmp_path, "--from-store") == 0
        after = artefact_of(tmp_path)
        assert after.manifest.version != before
        assert "brand-new" in {item.item_id for item in after.items}
        assert store_of(tmp_path) == url

    def test_a_foreign_store_does_not_change_the_current_pair(self, tmp_path, csv, capsys):
        """A model of another store is made and named, but does not become current."""
        assert train(tmp_path, "--interactions", csv) == 0
        before = (tmp_path / "current.json").read_bytes()

        others = [UserRecord(f"v{n}", "55+", history=[HistoryItem(f"j{n % 4}", 1.0, 1)]) for n in range(20)]
        url = f"sqlite:///{tmp_path}/other.db"
        in_store(url, lambda store: store.replace(others, population=UNKNOWN_FEATURES), create=True)
        capsys.readouterr()
        assert train(tmp_path, "--from-store", url) == 0
        assert (tmp_path / "current.json").read_bytes() == before
        named = Path(capsys.readouterr().out.partition("MODEL_PATH=")[2].split()[0])
        assert {item.item_id for item in read_artefact(named).items} == {"j0", "j1", "j2", "j3"}

    def test_invalid_input_is_an_error(self, tmp_path, csv, capsys):
        """A missing pipeline, an empty or unknown store and conflicting options are reported in one sentence."""
        assert train(tmp_path / "none", "--from-store") == 1
        assert "nothing was trained" in capsys.readouterr().err
        assert train(tmp_path, "--interactions", csv) == 0
        assert train(tmp_path, "--from-store", f"sqlite:///{tmp_path}/typo.db") == 1
        assert "typo.db: no such feature store" in capsys.readouterr().err
        assert not (tmp_path / "typo.db").exists()
        SqliteStore(tmp_path / "empty.db", create=True)
        assert train(tmp_path, "--from-store", f"sqlite:///{tmp_path}/empty.db") == 1
        assert "no interactions" in capsys.readouterr().err
        assert train(tmp_path, "--from-store", "ftp://x") == 1
        assert "'ftp://x' names no feature store" in capsys.readouterr().err
        assert run("train", "--from-store", "--interactions", csv) == 2
        assert run("train", "--min-weight", 3) == 2


def test_the_demo_data_can_be_held_out(held_out, demo):
    """Every user keeps four fifths of their items in the store."""
    whole = {record.user_id: len(record.history) for record in demo.records}
    for record in records_of(held_out):
        size = whole.pop(record.user_id)
        assert len(record.history) == record.views == size - size // 5
    assert whole == {}
    assert msgspec.json.encode(artefact_of(held_out).manifest.training["holdout_seed"]) == b"0"
