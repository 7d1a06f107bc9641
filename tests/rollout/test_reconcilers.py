"""A rollout of a Service that a reconciler reverts."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest

from tests.rollout.test_conductor import Recorded, good, kn, roll_out
from tools.rollout.comparison import TrialAnswer
from tools.rollout.reconcilers import reconciler_of

__all__ = ["kn"]

FLUX = {"kustomize.toolkit.fluxcd.io/name": "shop"}
ARGO = {"argocd.argoproj.io/tracking-id": "shop:serving.knative.dev/Service:recsys/rank-items"}


def revert(kn: Recorded, *, spec: dict[str, Any], fields: Sequence[str]) -> None:
    """Give the Service the *fields* that Git has; another template makes a revision, as on a cluster."""
    kn.latest += "template" in fields and spec["template"] != kn.body["spec"]["template"]
    for field in fields:
        kn.body["spec"].pop(field, None)
    kn.body["spec"] |= {field: copy.deepcopy(spec[field]) for field in fields if field in spec}
    kn.take_effect()


@pytest.mark.parametrize("fields", [["traffic"], ["template"], ["template", "traffic"]], ids="+".join)
@pytest.mark.parametrize("step", [0, 5, 25, 100])
def test_a_reverted_rollout_ends_and_says_why(kn, step, fields):
    """The rollout notices at the same step, names the reconciler, and leaves the Service as Git describes it."""
    kn.body["metadata"]["labels"] = FLUX
    spec, reverted = copy.deepcopy(kn.body["spec"]), False

    def reverting(url: str, share: int) -> TrialAnswer:
        nonlocal reverted
        if url == "http://candidate" and share == step and not reverted:
            reverted = True
            revert(kn, spec=spec, fields=fields)
        return good(url, share)

    outcome, said = roll_out(kn, reverting)
    assert reverted
    assert not outcome.promoted
    assert [each.share for each in outcome.seen] == [each for each in (0, 5, 25, 100) if each < step]
    assert outcome.reasons[0].endswith("the Kustomization shop of Flux manages it: pause it and roll out again")
    assert any("pause it until the rollout has ended" in line for line in said)
    assert kn.body["spec"]["template"] == spec["template"]
    assert kn.spec_traffic() == [{"latestRevision": True, "percent": 100}]


def test_a_paused_reconciler_lets_the_rollout_end(kn):
    """The rollout promotes, and says what to do before the reconciler continues."""
    kn.body["metadata"]["annotations"] = ARGO
    outcome, said = roll_out(kn)
    assert outcome.promoted
    assert said[-1] == (
        "change the manifests of rank-items in the same way before the application shop of Argo CD continues"
    )


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"labels": FLUX}, "the Kustomization shop of Flux"),
        ({"labels": {"helm.toolkit.fluxcd.io/name": "shop"}}, "the HelmRelease shop of Flux"),
        ({"annotations": ARGO}, "the application shop of Argo CD"),
        ({"labels": {"argocd.argoproj.io/instance": "shop"}}, "the application shop of Argo CD"),
        ({"labels": {"app.kubernetes.io/part-of": "recsys"}}, None),
        ({}, None),
    ],
)
def test_a_reconciler_is_known_by_its_mark(metadata, words):
    """The marks are those that Argo CD and Flux put on what they apply."""
    assert reconciler_of({"metadata": metadata}) == words


def test_a_service_without_a_reconciler_is_not_said_to_have_one(kn):
    """The messages of a rollout mention a reconciler only if the Service has the mark of one."""
    outcome, said = roll_out(kn)
    assert outcome.promoted
    assert not [line for line in said if "manages" in line]
