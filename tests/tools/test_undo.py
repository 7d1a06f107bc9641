"""Commands that restore an earlier template."""

import copy
from typing import Any

import pytest

from kubeyaml import edits
from tools.deployment.undo import undo

SERVICE: dict[str, Any] = {
    "metadata": {"name": "rank-items"},
    "spec": {
        "template": {
            "metadata": {
                "annotations": {"autoscaling.knative.dev/target": "3", "client.knative.dev/updateTimestamp": "1"}
            },
            "spec": {
                "containerConcurrency": 0,
                "containers": [
                    {
                        "image": "rank-items:v1",
                        "env": [
                            {"name": "A", "value": "1"},
                            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s"}}},
                        ],
                        "resources": {"requests": {"cpu": "2"}},
                    }
                ],
            },
        }
    },
}


def test_an_unchanged_template_needs_no_commands():
    """kn's own annotations do not count as a change."""
    after = copy.deepcopy(SERVICE)
    after["spec"]["template"]["metadata"]["annotations"]["client.knative.dev/updateTimestamp"] = "2"
    assert undo(SERVICE, after) == []


@pytest.mark.parametrize("missing", ["env", "resources", None])
def test_changes_are_reverted(missing):
    """Image, variables, annotations, resources and concurrency limit get their earlier values, or are removed."""
    before = copy.deepcopy(SERVICE)
    before["spec"]["template"]["spec"]["containers"][0].pop(missing, None)
    after = copy.deepcopy(before)
    template = after["spec"]["template"]
    edits.set_env(after, ["A=2", "B=3"])
    edits.set_entries(template["metadata"], "annotations", ["autoscaling.knative.dev/target-", "x=y"])
    edits.container(after).update(
        image="rank-items:v2", resources={"requests": {"cpu": "4"}, "limits": {"memory": "1Gi"}}
    )
    template["spec"]["containerConcurrency"] = 5
    flags = undo(before, after)
    pairs = list(zip(flags[::2], flags[1::2], strict=True))
    assert pairs == [
        ("--image", "rank-items:v1"),
        ("--env", "A-" if missing == "env" else "A=1"),
        ("--env", "B-"),
        ("--annotation-revision", "autoscaling.knative.dev/target=3"),
        ("--annotation", "x-"),
        ("--request", "cpu-" if missing == "resources" else "cpu=2"),
        ("--limit", "memory-"),
        ("--concurrency-limit", "0"),
    ]
