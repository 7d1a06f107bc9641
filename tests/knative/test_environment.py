"""The functions' settings and the environment in the manifests are the same set."""

from types import ModuleType

import pytest

from chassis.environment import Reader
from functions.extract_features import settings as extract_features
from functions.rank_items import settings as rank_items
from functions.recommend import settings as recommend
from functions.recommend.hops import MAX_REQUEST_BYTES
from kubeyaml.configuration import expand
from kubeyaml.templates import Template
from recsys.contracts.wire import MAX_BATCH, MAX_ID_LENGTH
from tests.knative.objects import FUNCTIONS, ON_CLUSTERS, ROOT, annotations, environment, overlay, services
from tools.doctor import find_contradictions

pytestmark = pytest.mark.may_block

SETTINGS: dict[str, ModuleType] = {
    "extract-features": extract_features,
    "rank-items": rank_items,
    "recommend": recommend,
}

# Variables that are in no manifest because something else sets them.
SET_BY = {
    "HOST": "the Dockerfiles",
    "PORT": "Knative",
    "K_REVISION": "Knative",
    "WAKE_URLS": "components/zero",
    "K_SINK": "Knative, with components/served-events",
    "K_CE_OVERRIDES": "Knative, with components/served-events",
    "LOCALKN_POD": "localkn",
    "LOCALKN_STATS": "localkn",
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Record the names of the variables that the settings read during the test."""
    names: set[str] = set()

    class Recording(Reader):
        def finish(self) -> None:
            names.update(self.names)
            super().finish()

    for module in SETTINGS.values():
        monkeypatch.setattr(module, "Reader", Recording)
    return names


SEPARATE = ["local", "local-exposures", *(name for name in ON_CLUSTERS if name != "small")]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", SEPARATE)
def test_variables_read_and_set_are_the_same(asked, name, function):
    """Every variable that a function reads is set by the manifests or listed above, and every variable set is read."""
    objects = overlay(name)
    given = environment(services(objects)[function], objects)
    settings = SETTINGS[function].Settings.from_env(given)
    assert asked - SET_BY.keys() == given.keys()
    template = Template.from_body(services(objects)[function]["spec"]["template"])
    assert list(find_contradictions(settings, template)) == []


@pytest.mark.parametrize("name", ["fused", "small"])
def test_the_fused_function_gets_the_settings_of_all_functions(asked, name):
    """The fused Service sets every variable that its parts read, and none that they do not read."""
    objects = overlay(name)
    given = environment(services(objects)["recommend"], objects)
    for part in (extract_features, rank_items):
        part.Settings.from_env(given)
    reader = Reader(given)
    recommend.PopularSettings.read(reader)
    reader.finish()
    assert asked.union(reader.names) - SET_BY.keys() == given.keys()


@pytest.mark.parametrize("name", ["fused", "small"])
def test_the_fused_function_scales_out_when_a_batch_is_full(name):
    """More pods would divide the batch that one pod answers together."""
    objects = overlay(name)
    service = services(objects)["recommend"]
    assert annotations(service)["target"] == environment(service, objects)["MAX_BATCH_SIZE"]


@pytest.mark.parametrize("name", SEPARATE)
def test_body_limits_admit_the_longest_requests(name):
    """The body limits in the manifests leave room for the longest requests between the functions."""
    objects = overlay(name)
    limits = {
        function: int(environment(services(objects)[function], objects)["MAX_BODY_BYTES"])
        for function in ("extract-features", "rank-items")
    }
    # A character takes four bytes in UTF-8 at most; an id adds two quotes and a comma.
    assert limits["extract-features"] >= MAX_BATCH * (4 * MAX_ID_LENGTH + 3) * 1.5
    assert limits["rank-items"] >= MAX_REQUEST_BYTES * 2


def test_variables_set_elsewhere_are_read(asked):
    """Every variable in the list above is read by a function."""
    for function, module in SETTINGS.items():
        objects = overlay("dev")
        module.Settings.from_env(environment(services(objects)[function], objects))
    assert asked >= SET_BY.keys()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_dockerfiles_set_the_host(function):
    """Each Dockerfile sets HOST, as the list above says."""
    text = (ROOT / "functions" / function.replace("-", "_") / "Dockerfile").read_text()
    assert "HOST=0.0.0.0" in text


def test_recommend_events_is_configured_like_recommend():
    """components/event-door repeats the settings of base/recommend.yaml, except for authentication."""
    objects = overlay("prod")
    door, public = (environment(services(objects)[name], objects) for name in ("recommend-events", "recommend"))
    assert {**door, "AUTH": public["AUTH"]} == public
    assert (door["AUTH"], public["AUTH"]) == ("off", "tokens")


def test_the_zero_mode_wakes_the_functions_that_recommend_calls():
    """With components/zero every function may scale to zero, and recommend wakes the addresses that it calls."""
    objects = overlay("zero")
    found = services(objects)
    assert {annotations(found[name])["min-scale"] for name in FUNCTIONS} == {"0"}
    given = environment(found["recommend"], objects)
    settings = recommend.Settings.from_env(given | {"WAKE_URLS": expand(given["WAKE_URLS"], given)})
    assert settings.wake_urls == (settings.extract_features_url, settings.rank_items_url)
    # The first request waits for a cold start of the other functions, which takes seconds.
    assert settings.serving.default_timeout_s == settings.serving.max_timeout_s
