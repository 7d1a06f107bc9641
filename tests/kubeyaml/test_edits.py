"""The changes that the flags of `kn service update` make to a Service, without a platform."""

from typing import Any

import pytest

from kubeyaml import edits
from kubeyaml.errors import EditError


def service(*targets: dict[str, Any], live: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    resolved = live if live is not None else [{"revisionName": "s-00002", "percent": 100}]
    return {"metadata": {"name": "s"}, "spec": {"traffic": list(targets)}, "status": {"traffic": resolved}}


def traffic(
    given: dict[str, Any],
    *shares: str,
    mutation: bool = False,
    tags: tuple[str, ...] = (),
    untags: tuple[str, ...] = (),
) -> list[dict[str, Any]]:
    return edits.traffic(given, tags=tags, untags=untags, shares=shares, mutation=mutation)


LATEST = {"latestRevision": True, "percent": 100}


def test_env_is_replaced_added_and_removed() -> None:
    """The remaining variables keep their order, and a value replaces a reference."""
    entries = [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {}}, {"name": "C", "value": "3"}]
    container = {"env": entries}
    body = {"spec": {"template": {"spec": {"containers": [container]}}}}
    edits.set_env(body, ["D=4=4", "B=2", "A-", "X-"])
    assert container["env"] == [{"name": "B", "value": "2"}, {"name": "C", "value": "3"}, {"name": "D", "value": "4=4"}]
    assert entries[0] == {"name": "A", "value": "1"}
    untouched: dict[str, Any] = {}
    edits.set_env({"spec": {"template": {"spec": {"containers": [untouched]}}}}, [])
    assert untouched == {}
    with pytest.raises(EditError, match="neither NAME=VALUE nor NAME-"):
        edits.set_env(body, ["A"])


def test_entries_are_set_and_removed() -> None:
    """Annotations are set and removed, and no flags leave no empty mapping."""
    owner: dict[str, Any] = {"annotations": {"a": "1", "b": "2"}}
    edits.set_entries(owner, "annotations", ["a-", "c=3"])
    edits.set_entries(owner, "labels", [])
    assert owner == {"annotations": {"b": "2", "c": "3"}}


@pytest.mark.parametrize(
    ("given", "shares", "expected"),
    [
        (service(LATEST), ["s-00001=100"], [{"revisionName": "s-00001", "percent": 100}]),
        (service(), ["s-00001=90%", "@latest=10"], [{"latestRevision": True, "percent": 10}, {"revisionName": "s-00001", "percent": 90}]),
        (service(), ["s-00001=90,@latest=10"], [{"latestRevision": True, "percent": 10}, {"revisionName": "s-00001", "percent": 90}]),
        (service({"revisionName": "s-00001", "percent": 100}), ["100"], [{"latestRevision": True, "percent": 100}]),
        (
            service({"revisionName": "s-00001", "percent": 100, "tag": "old"}, live=[{"revisionName": "s-00001", "tag": "old"}]),
            ["old=40", "s-00002=60"],
            [{"revisionName": "s-00001", "percent": 40, "tag": "old"}, {"revisionName": "s-00002", "percent": 60}],
        ),
        (
            service(
                {"revisionName": "s-00001", "percent": 50}, {"revisionName": "s-00002", "percent": 50},
                live=[{"revisionName": "s-00001"}, {"revisionName": "s-00002"}],
            ),
            ["s-00001=30"],
            [{"revisionName": "s-00001", "percent": 30}, {"revisionName": "s-00002", "percent": 70}],
        ),
    ],
)  # fmt: skip
def test_traffic_flags_replace_all_earlier_shares(
    given: dict[str, Any], shares: list[str], expected: list[dict[str, Any]]
) -> None:
    """The command line describes the whole split, and a single target that is left out gets the rest."""
    assert traffic(given, *shares) == expected


def test_the_rest_of_the_traffic_goes_to_the_new_revision() -> None:
    """In an update that makes a revision, the rest of the traffic goes to that revision."""
    given = service({"revisionName": "s-00001", "percent": 100}, live=[{"revisionName": "s-00001"}])
    expected = [{"revisionName": "s-00001", "percent": 80}, {"latestRevision": True, "percent": 20}]
    assert traffic(given, "s-00001=80", mutation=True) == expected


def test_tags_are_added_moved_and_removed() -> None:
    """A tag without traffic is a target of 0 %, and a second tag on a revision is a second target."""
    tagged = traffic(service(LATEST), tags=("s-00001=old", "@latest=new"))
    assert tagged == [LATEST | {"tag": "new"}, {"revisionName": "s-00001", "percent": 0, "tag": "old"}]
    assert traffic(service(*tagged), tags=("s-00001=old",)) == tagged
    twice = traffic(service(*tagged), tags=("s-00001=older",))
    assert twice[2] == {"revisionName": "s-00001", "percent": 0, "tag": "older"}
    assert traffic(service(*tagged), untags=("old", "new")) == [LATEST]
    moved = traffic(service(*tagged), untags=("old",), tags=("s-00002=old",))
    assert moved == [LATEST | {"tag": "new"}, {"revisionName": "s-00002", "percent": 0, "tag": "old"}]


@pytest.mark.parametrize(
    ("shares", "tags", "untags", "message"),
    [
        (["s-00001=101"], (), (), "invalid value for traffic percent 101"),
        (["s-00001=x"], (), (), "invalid value for traffic percent x"),
        (["s-00001=60", "s-00002=60"], (), (), "sum to 120, want <=100"),
        (["s-00001=60"], (), (), "unable to allocate the remaining traffic: 40%"),
        (["s-00001=60", "s-00001=40"], (), (), "repetition of s-00001"),
        (["=60"], (), (), "expecting the value format"),
        ([], (), ("none",), "tag.s. none not present"),
        ([], ("s-00001=new",), (), "refusing to overwrite existing tag"),
        ([], ("@latest=other",), (), "--untag new"),
        ([], ("@latest=a", "@latest=b"), (), "repetition of @latest"),
    ],
)
def test_flags_that_kn_refuses_are_refused(
    shares: list[str], tags: tuple[str, ...], untags: tuple[str, ...], message: str
) -> None:
    """The refusal gives kn's own reason."""
    with pytest.raises(EditError, match=message):
        traffic(service(LATEST | {"tag": "new"}), *shares, tags=tags, untags=untags)
