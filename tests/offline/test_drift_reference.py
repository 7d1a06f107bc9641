"""A training notes the distributions of its features and scores in the manifest."""

import math
from pathlib import Path

import msgspec
import pytest

from functions.rank_items.drift import EVERY, Drift
from offline.demo import Demo
from offline.drift_reference import find_reference
from recrank.artefact import MANIFEST, read_artefact, write_manifest
from recrank.model import Query, RankingModel
from recsys import metrics
from recsys.contracts.wire import MAX_HISTORY
from recsys.features import compute_features
from recsys.records import UserRecord
from tests.demo import DemoState

pytestmark = pytest.mark.may_block


def indices(model: RankingModel, demo: Demo, *, more_purchases: int = 0) -> dict[str, float]:
    """Return the population stability index of each measure if each user of the demo asks, as rules.yaml computes it."""
    drift = Drift(find_reference(model, demo.records), version="v", knows=lambda _: True)
    for record in demo.records:
        known = record.known(history=MAX_HISTORY)
        features = compute_features(known)
        features = msgspec.structs.replace(features, total_purchases=features.total_purchases + more_purchases)
        query = Query(features, known.recent, 5, as_of_us=known.as_of_us)
        drift.count([query] * EVERY, model.rank([query]) * EVERY)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for instrument in drift.instruments():
        if instrument.definition in {metrics.DRIFT_REQUESTS, metrics.DRIFT_EXPECTED}:
            for sample in instrument.collect().samples:
                of = found.setdefault(sample.labels["measure"], {}).setdefault(instrument.definition.name, {})
                of[sample.labels["bucket"]] = sample.value
    return {
        name: index_of(each[metrics.DRIFT_REQUESTS.name], each[metrics.DRIFT_EXPECTED.name])
        for name, each in found.items()
    }


def index_of(counts: dict[str, float], expected: dict[str, float]) -> float:
    total = sum(counts.values())
    pairs = [(max(counts[bucket] / total, 1e-4), max(expected[bucket], 1e-4)) for bucket in expected]
    return sum((share - usual) * math.log(share / usual) for share, usual in pairs)


def test_the_users_of_the_training_do_not_drift_and_other_users_do(demo_state: DemoState, demo: Demo) -> None:
    """If each user asks once, no measure reaches the alert's 0.25; with ten more purchases each, that measure does."""
    model = RankingModel(read_artefact(demo_state.model_path))
    usual = indices(model, demo)
    assert usual.keys() == {"age_group", "avg_session_duration", "total_purchases", "engagement_score", "score"}
    assert max(usual.values()) < 0.25
    changed = indices(model, demo, more_purchases=10)
    assert [name for name, value in changed.items() if value > 0.25] == ["total_purchases"]


def test_a_training_writes_the_reference_and_the_version_ignores_it(demo_state: DemoState, tmp_path: Path) -> None:
    """The manifest has all measures. Without them, the artefact keeps its version and can be read."""
    artefact = read_artefact(demo_state.model_path)
    assert artefact.manifest.reference is not None
    assert len(artefact.manifest.reference) == 5
    for file in demo_state.model_path.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    write_manifest(tmp_path, msgspec.structs.replace(artefact.manifest, reference=None))
    earlier = msgspec.json.decode((tmp_path / MANIFEST).read_bytes())
    del earlier["reference"]
    (tmp_path / MANIFEST).write_bytes(msgspec.json.encode(earlier))
    found = read_artefact(tmp_path).manifest
    assert (found.version, found.reference) == (artefact.manifest.version, None)


def test_users_without_a_history_give_no_reference(demo_state: DemoState) -> None:
    """There is nothing to compare with, and the artefact serves without it."""
    model = RankingModel(read_artefact(demo_state.model_path))
    assert find_reference(model, [UserRecord("ann", "55+")]) is None
