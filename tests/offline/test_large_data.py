"""Large data: blocks and samples limit memory and time, and blocks change no result."""

from pathlib import Path

import numpy as np

from offline import choice, pairs
from offline.pairs import View, count_pairs
from recsys.records import HistoryItem, UserRecord
from tools.bench.scale import write_interactions


def test_blocks_of_rows_do_not_change_neighbours(monkeypatch):
    """Neighbours are chosen in blocks of items, and the size of the blocks changes no bit."""
    rng = np.random.default_rng(0)
    histories = [rng.choice(90, rng.integers(0, 40), replace=False).astype(np.int32) for _ in range(200)]
    counted = count_pairs(histories, items=90, ordered=True)
    some = rng.random(90) < 0.5
    for view in (View(0.0, 0.5, 0.2, 1.0), View(0.5, 0.5, 0.5, 3.0)):
        for only in (None, some):
            whole = counted.neighbours(view, only=only)
            with monkeypatch.context() as patched:
                patched.setattr(pairs, "_BLOCK_PAIRS", 500)
                parts = counted.neighbours(view, only=only)
            assert (whole.ends == parts.ends).all()
            assert (whole.items == parts.items).all()
            assert whole.weights.tobytes() == parts.weights.tobytes()


def test_settings_of_large_data_are_chosen_on_a_sample(monkeypatch):
    """Above a number of ties, random users are kept in their order; below it, all users."""
    records = [UserRecord(f"u{n}", "unknown", history=[HistoryItem("a", 1.0, 1)] * 10) for n in range(100)]
    assert choice._sample(records) is records
    monkeypatch.setattr(choice, "_MOST_TIES", 300)
    sample = choice._sample(records)
    assert [record.user_id for record in sample] == sorted(
        (record.user_id for record in sample), key=lambda id_: int(id_[1:])
    )
    assert len(sample) == 30


def test_synthetic_interactions_follow_power_laws(tmp_path: Path):
    """The file is the same on every call, pairs are distinct, and few users and items have most of the ties."""
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    ties, users = write_interactions(first, 20_000)
    assert write_interactions(second, 20_000) == (ties, users)
    assert first.read_bytes() == second.read_bytes()
    rows = [line.split(",") for line in first.read_text().splitlines()[1:]]
    assert len({(row[0], row[1]) for row in rows}) == len(rows) == ties
    for column in (0, 1):
        counts = np.sort(np.unique([row[column] for row in rows], return_counts=True)[1])[::-1]
        assert counts[: counts.size // 10].sum() > 0.3 * ties
