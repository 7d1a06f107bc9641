"""Declared attributes of users and a declared context go from files and events through all functions."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from offline.state import StateDirectory
from recsys.contracts import events
from tests.integration.test_shops import train
from tests.running import CLIENT, Running, running, running_pipeline
from tests.shops import FASHION, SHOPS
from tools.cli.verbs import main

pytestmark = [pytest.mark.may_block, pytest.mark.timeout(300)]

DECLARED = (
    FASHION
    + """
[users.attributes]
city = { kind = "categorical", column = "Home Town" }
sizes = { kind = "multi-valued" }
spent = { kind = "number" }

[context]
device = { kind = "categorical" }
hour = { kind = "number" }
"""
)
USERS = """user_id,Home Town,age,sizes,spent
user_0,Bern,30,M|L,12
user_1,,61,,
new,Rom,,S,
"""


@dataclass(frozen=True)
class Open:
    """The functions of a shop."""

    state: StateDirectory
    features: Running
    recommend: Running

    def known(self, user: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.features.post({"user_id": user}).json()
        return answer

    def ask(self, **fields: object) -> httpx.Response:
        return self.recommend.post({"user_id": "user_0", **fields})

    def update(self, user: str, *, time: str, **values: list[str]) -> int:
        data = {"user_id": user, "attributes": [{"attribute": name, "values": each} for name, each in values.items()]}
        return self.send(events.USER_UPDATED, data, time)

    def send(self, type_: str, data: object, time: str) -> int:
        headers = {"ce-specversion": "1.0", "ce-id": time, "ce-source": "/crm", "ce-type": type_, "ce-time": time}
        return CLIENT.post(self.features.url, json=data, headers=headers).status_code


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    folder = tmp_path_factory.mktemp("fashion")
    (folder / "users.csv").write_text(USERS, "utf-8")
    shop = replace(SHOPS["fashion"], declaration=DECLARED, user_header="")
    state = StateDirectory(train(folder, shop, "--users", str(folder / "users.csv")))
    settings: dict[str, dict[str, str]] = {}
    for each in state.environment():
        service, _, setting = each.partition(":")
        name, _, value = setting.partition("=")
        settings.setdefault(service, {})[name] = value
    with running_pipeline(*(settings[name] for name in ("extract-features", "rank-items", "recommend"))) as started:
        yield Open(state, started.extract_features, started.recommend)


def test_attributes_come_from_the_users_file(opened):
    """Columns are read by the declaration; a user without interactions is known by the attributes."""
    one, two, new = map(opened.known, ("user_0", "user_1", "new"))
    assert one["attributes"] == {"city": ["Bern"], "sizes": ["M", "L"], "spent": ["12.0"]}
    assert one["features"]["age_group"] == "25-34"
    assert (two["features"]["age_group"], "attributes" in two) == ("55+", False)
    assert (new["attributes"], new["history"], "cold_start" in new) == ({"city": ["Rom"], "sizes": ["S"]}, [], False)


def test_events_change_attributes_and_answers_stay_whole(opened):
    """The newest value counts, and the ranker takes the request with the attributes."""
    assert opened.update("user_2", time="2026-03-02T00:00:00Z", city=["Genf"], age_group=["18-24"]) == 202
    assert opened.update("user_2", time="2026-03-01T00:00:00Z", city=["Rom"], sizes=["S"]) == 202
    known = opened.known("user_2")
    assert known["attributes"] == {"city": ["Genf"], "sizes": ["S"]}
    assert known["features"]["age_group"] == "18-24"
    answer = opened.recommend.post({"user_id": "user_2"}, prefer="handling=strict")
    assert answer.status_code == 200
    assert len(answer.json()["recommendations"]) == 5
    assert opened.update("user_2", time="2026-03-03T00:00:00Z", colour=["red"]) == 422


def test_an_erasure_removes_the_attributes(opened):
    """A later event does not bring them back."""
    assert opened.update("user_3", time="2026-03-01T00:00:00Z", city=["Genf"]) == 202
    assert opened.send(events.ERASED, {"user_id": "user_3"}, "2026-03-02T00:00:00Z") == 202
    assert opened.update("user_3", time="2026-03-03T00:00:00Z", city=["Genf"]) == 202
    known = opened.known("user_3")
    assert (known["cold_start"], "attributes" in known) == (True, False)


def test_a_context_is_checked_by_the_declaration(opened):
    """Declared values change nothing without a feature that uses them; all others are faults, also in a batch."""
    plain = opened.ask().content
    assert opened.ask(context={"device": "phone", "hour": 14}).content == plain
    faulty = {"device": 7, "hour": "noon", "page": "home"}
    refused = opened.ask(context=faulty)
    assert refused.status_code == 422
    paths = ["$.context.device", "$.context.hour", "$.context.page"]
    assert [fault["path"] for fault in refused.json()["errors"]] == paths
    requests = [{"user_id": "user_0", "context": faulty}, {"user_id": "user_0"}]
    failed, answered = opened.recommend.post({"requests": requests}).json()["results"]
    assert [fault["path"] for fault in failed["error"]["errors"]] == paths
    assert answered == json.loads(plain)


def test_the_command_line_shows_attributes_and_sends_a_context(opened, capsys):
    """A fault of the context is printed with its place."""
    folder = ["--state-dir", str(opened.state.folder)]
    assert main(["users", "show", "user_0", *folder]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[2:] for line in shown if line.startswith("attribute sizes")] == [["M,", "L"]]
    assert main(["users", "show", "user_0", "--json", *folder]) == 0
    assert json.loads(capsys.readouterr().out)["attributes"]["city"] == ["Bern"]
    ask = ["recommend", "user_0", "--url", opened.recommend.url, *folder]
    assert main([*ask, "--context", "device=phone", "--context", "hour=14"]) == 0
    capsys.readouterr()
    assert main([*ask, "--context", 'device="7"']) == 0
    assert main([*ask, "--context", "device=7"]) == 1
    assert "$.context.device must be a string, not a number" in capsys.readouterr().err
    assert main([*ask, "--context", "phone"]) == 2


def test_a_training_on_the_store_keeps_the_attributes(opened):
    """The store stays as it is, and serves the next model."""
    before = opened.known("user_0")
    assert main(["train", "--from-store", "--state-dir", str(opened.state.folder)]) == 0
    assert opened.known("user_0") == before


def test_a_store_of_another_context_or_other_attributes_is_refused(opened, tmp_path: Path):
    """The message names the field."""
    changed = tmp_path / "changed.toml"
    changed.write_text(DECLARED.replace("hour =", "minute ="), "utf-8")
    env = {"FEATURE_STORE_URL": opened.state.store_url(opened.state.require_current())}
    with (
        pytest.raises(AssertionError, match="context.hour is .* in the feature store and absent in RECSYS_DECLARATION"),
        running("extract_features", env | {"RECSYS_DECLARATION": str(changed)}),
    ):
        pass
