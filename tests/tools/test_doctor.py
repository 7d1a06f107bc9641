import pytest

from kubeyaml.manifests import load
from tools import doctor


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
    ("scaling", "in_flight", "faults"),
    [
        ({}, "0", 0),
        ({}, "16", 1),
        ({"max-scale": "1"}, "16", 0),
        ({"metric": "rps", "target": "100"}, "16", 0),
    ],
)
def test_coalescing_that_hides_the_load_is_found(fresh, scaling, in_flight, faults):
    """Coalesced ranking calls are a fault when the autoscaler counts calls."""
    change(fresh, "rank-items", annotation=scaling)
    change(fresh, "recommend", env={"RANKING_COALESCE_IN_FLIGHT": in_flight})
    services = [resource for resource in fresh if resource.is_service]
    found = list(doctor.find_hidden_load(services, fresh))
    assert len(found) == faults
    assert all("RANKING_COALESCE_IN_FLIGHT" in fault for fault in found)
