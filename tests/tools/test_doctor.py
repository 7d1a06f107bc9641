import pytest

from kubeyaml.manifests import load
from tools import doctor
from tools.rollout.journal import journal_of


@pytest.fixture(scope="module")
def resources():
    return load(doctor.MANIFESTS)


@pytest.fixture
def services(resources):
    return [resource for resource in resources if resource.is_service]


def change(services, name, *, annotation=None, env=None, **spec):
    """Change one Service in place."""
    template = next(service for service in services if service.name == name).body["spec"]["template"]
    for key, value in (annotation or {}).items():
        template["metadata"]["annotations"][f"autoscaling.knative.dev/{key}"] = value
    for variable in template["spec"]["containers"][0]["env"]:
        if variable["name"] in (env or {}):
            variable["value"] = env[variable["name"]]
    template["spec"] |= spec


@pytest.fixture
def fresh():
    """Load manifests that a test may change."""
    return load(doctor.MANIFESTS)


def test_the_shipped_manifests_have_no_faults(resources, services):
    """The local manifests and the functions' settings do not contradict each other."""
    assert [fault for service in services for fault in doctor.find_faults(service, resources)] == []
    assert list(doctor.find_hidden_load(services, resources)) == []


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("rank-items", {"env": {"MAX_BATCH_SIZE": "many"}}, "MAX_BATCH_SIZE must be an integer"),
        ("rank-items", {"env": {"MAX_REQUEST_TIMEOUT_S": "60"}}, "outlives timeoutSeconds"),
        ("rank-items", {"containerConcurrency": 8}, "no batch could ever fill"),
        ("rank-items", {"annotation": {"min-scale": "9"}}, "min-scale"),
    ],
)
def test_contradictions_are_found(fresh, name, changes, says):
    """A setting that is invalid, or that the platform would defeat, is a fault with its reason."""
    change(fresh, name, **changes)
    faults = [fault for service in fresh if service.is_service for fault in doctor.find_faults(service, fresh)]
    assert len(faults) == 1
    assert says in faults[0]


@pytest.mark.parametrize(
    ("scaling", "calls", "in_flight", "says"),
    [
        ({}, "4", "16", []),
        ({}, "16", "0", []),
        ({"target": "3"}, "16", "16", ["RANKING_COALESCE_CALLS 16"]),
        ({}, "4", "8", ["RANKING_COALESCE_IN_FLIGHT 8"]),
        ({"target": "20"}, "4", "16", ["RANKING_COALESCE_CALLS 4", "RANKING_COALESCE_IN_FLIGHT 16"]),
        ({"max-scale": "1"}, "16", "16", []),
        ({"metric": "rps", "target": "100"}, "16", "16", []),
    ],
)
def test_groups_of_calls_that_hide_the_load_are_found(fresh, scaling, calls, in_flight, says):
    """Groups must be small enough, and enough of them in flight, that the autoscaler of rank-items sees the load."""
    change(fresh, "rank-items", annotation=scaling)
    change(fresh, "recommend", env={"RANKING_COALESCE_IN_FLIGHT": in_flight, "RANKING_COALESCE_CALLS": calls})
    services = [resource for resource in fresh if resource.is_service]
    found = list(doctor.find_hidden_load(services, fresh))
    assert len(found) == len(says)
    assert all(text in fault for text, fault in zip(says, found, strict=True))


def test_a_killed_rollout_is_found(tmp_path):
    """The finding names the Service, and the command that restores it; an ended rollout has no finding."""
    journal = journal_of("rank-items", tmp_path / "rollouts")
    with journal.held():
        journal.begin({"metadata": {"name": "rank-items"}})
    with pytest.raises(doctor.DoctorFinding, match=r"a rollout of rank-items was killed.*\./run\.sh rollout"):
        list(doctor.check_rollouts(tmp_path))
    journal.end()
    assert list(doctor.check_rollouts(tmp_path)) == ["no rollout is unfinished"]
