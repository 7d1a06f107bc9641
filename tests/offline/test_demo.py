from collections import Counter

from offline.demo import GENRES, make_demo
from offline.matrix import fingerprint
from recsys.features import compute_features


def test_the_demo_data_is_deterministic(demo):
    """The data depends only on its seed."""
    assert fingerprint(make_demo().records) == fingerprint(demo.records)
    assert fingerprint(make_demo(seed=8).records) != fingerprint(demo.records)


def test_the_demo_data_has_the_documented_size(demo):
    """The data has a thousand users, a thousand titled items and about fifty thousand timed interactions."""
    assert {record.user_id for record in demo.records} == {f"user_{number}" for number in range(1, 1001)}
    assert [item.item_id for item in demo.items] == [f"item_{number}" for number in range(1000)]
    assert len({item.title for item in demo.items}) == 1000
    interactions = sum(record.views + record.clicks + record.purchases for record in demo.records)
    assert 45_000 <= interactions <= 55_000
    assert all(record.sessions > 0 and record.as_of_us for record in demo.records)
    assert sum(record.purchases for record in demo.records) > 2000


def test_tastes_are_planted(demo):
    """A user's genre is among the two strongest of their history, and age groups prefer different genres."""
    genre = {item.item_id: item.category for item in demo.items}
    for record in demo.records:
        weights = Counter[str]()
        for item in record.history:
            weights[genre[item.item_id]] += item.weight
        assert demo.tastes[record.user_id] in dict(weights.most_common(2))
    young = Counter(demo.tastes[record.user_id] for record in demo.records if record.age_group == "under-18")
    old = Counter(demo.tastes[record.user_id] for record in demo.records if record.age_group == "55+")
    assert young.most_common(1)[0][0] != old.most_common(1)[0][0]
    assert set(demo.tastes.values()) == set(GENRES)


def test_features_differ_between_users(demo):
    """None of the four features is constant."""
    features = [compute_features(record) for record in demo.records]
    assert len({each.age_group for each in features}) == 6
    assert len({each.avg_session_duration for each in features}) > 900
    assert len({each.total_purchases for each in features}) > 5
    assert len({each.engagement_score for each in features}) > 100
