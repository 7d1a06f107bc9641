"""The studies of an evaluation: what is known of each user, and what is to be found."""

from offline.evaluation.studies import NEW_ITEMS, PER_USER, Data, study_by_date, study_per_user, study_unseen
from offline.interactions import Interactions
from offline.reading.lines import Row


def rows(users: int, items: int, *, timed: bool = True) -> list[Row]:
    return [
        Row(f"u{user}", f"i{(user + n) % 40}", 1.0, 1000 * user + n if timed else None)
        for user in range(users)
        for n in range(items)
    ]


def test_unseen_users_are_known_by_their_first_items():
    """Panels know 0, 1, 2, 5 or 10 items or all but the newest fifth, and look for the next ones, at most 20."""
    study = study_unseen(Data(Interactions.of(rows(20, 38)), age_groups={"u3": "55+"}), ahead=True)
    assert list(study.panels) == ["0", "1", "2", "5", "10", "more"]
    names = {column: item_id for item_id, column in study.panels["2"].columns.items()}
    trained = {record.user_id for record in study.records}
    for name, panel in study.panels.items():
        assert len(panel.records) == 4
        for row, record in enumerate(panel.records):
            assert record.user_id not in trained
            user = int(record.user_id[1:])
            known = 31 if name == "more" else int(name)
            assert [item.item_id for item in record.history] == [f"i{(user + n) % 40}" for n in range(known)][::-1]
            assert record.views == known
            held = panel.held.indices[panel.held.indptr[row] : panel.held.indptr[row + 1]]
            wanted = {f"i{(user + n) % 40}" for n in range(known, min(38, known + 20))}
            assert {names.get(column, "") for column in held} == wanted
            assert record.age_group == ("55+" if record.user_id == "u3" else "unknown")


def test_unseen_users_without_times_get_a_random_order():
    """Without times the known items are random ones, the same on every call."""
    data = Data(Interactions.of(rows(20, 38, timed=False)))
    first, second = (study_unseen(data, ahead=False) for _ in range(2))
    assert first.panels["5"].records == second.panels["5"].records
    known = first.panels["5"].records[0]
    assert {item.item_id for item in known.history} != {f"i{(int(known.user_id[1:]) + n) % 40}" for n in range(5)}


def test_users_are_sampled():
    """A limit on users holds for each panel."""
    data = Data(Interactions.of(rows(100, 10)), most_users=10)
    assert len(study_per_user(data, holdout="temporal", seed=0).panels[PER_USER].records) == 10
    assert len(study_unseen(data, ahead=True).panels["1"].records) == 2


def test_the_split_at_a_date_finds_new_items():
    """An item whose first interaction is after the date is a new item."""
    known = [Row(f"u{user}", f"i{n}", 1.0, 10 * n + user) for user in range(8) for n in range(10)]
    later = [Row(f"u{user}", "new" if user < 3 else "i11", 1.0, 1000 + user) for user in range(8)]
    late_first = [Row("u0", "i11", 1.0, 50)]
    study = study_by_date(Data(Interactions.of(known + later + late_first)))
    panel = study.panels[NEW_ITEMS]
    assert {"u0", "u1", "u2"} <= {record.user_id for record in panel.records}
    assert panel.columns["new"] >= panel.catalogue
    assert set(panel.held.indices.tolist()) == {panel.columns[id_] for id_ in panel.columns} - set(
        range(panel.catalogue)
    )
