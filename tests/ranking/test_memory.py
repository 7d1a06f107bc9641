from pathlib import Path
from typing import cast

import pytest

from kubeyaml.manifests import load
from offline.state import StateDirectory
from recrank.artefact import write_artefact
from recrank.memory import estimate_mib
from tools import doctor
from tools.bench.batching import make_artefact


def write(folder: Path, items: int) -> Path:
    artefact = make_artefact(items=items, dims=16)
    write_artefact(folder, name="m", arrays=artefact.arrays, items=artefact.items, training={}, metrics={})
    return folder


def test_the_estimate_grows_with_the_catalogue(tmp_path):
    """A model of a few items needs little beside the program; each further item adds its vector and its id."""
    small, large = (estimate_mib(write(tmp_path / str(items), items)) for items in (10, 100_000))
    assert small < 100
    assert large - small > 100_000 * 16 * 4 / 2**20


@pytest.mark.parametrize(("limit", "fits"), [("512Mi", True), ("32Mi", False)])
def test_doctor_compares_the_need_with_the_limit(tmp_path, monkeypatch, limit, fits):
    """A model that does not fit into the limit of the manifest is a fault that names both figures."""
    resources = load(doctor.MANIFESTS)
    for service in resources:
        if service.is_service and service.name == "rank-items":
            service.body["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = limit
    monkeypatch.setattr(doctor, "load", lambda _: resources)
    folder = write(tmp_path / "model", 10)

    class State:
        def current(self) -> str:
            return "pair"

        def model_path(self, _: str) -> Path:
            return folder

    need, state = estimate_mib(folder), cast("StateDirectory", State())
    if fits:
        assert list(doctor.check_memory(state)) == [f"rank-items needs about {need} of 512 MiB"]
    else:
        with pytest.raises(doctor.DoctorFinding, match=f"{need} MiB .* 32 MiB"):
            list(doctor.check_memory(state))
