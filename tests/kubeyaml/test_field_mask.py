"""Volumes and mounts that Serving's field mask accepts."""

from pathlib import Path
from typing import Any

import pytest

from kubeyaml.configuration import Configuration
from kubeyaml.resources import Resource
from kubeyaml.templates import Mount, Template
from kubeyaml.validation import enabled_features, service_faults

FLAG = "kubernetes.podspec-volumes-image"
TOKEN = {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}}
DOWNWARD = {
    "downwardAPI": {
        "items": [
            {"path": "labels", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}},
            {"path": "cpu", "mode": 288, "resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}},
        ]
    }
}


def service(volume: dict[str, Any], *mounts: dict[str, Any]) -> dict[str, Any]:
    mounted = mounts or ({"mountPath": "/v"},)
    container = {"image": "front", "volumeMounts": [{"name": "v", **mount} for mount in mounted]}
    pod = {"volumes": [{"name": "v", **volume}], "containers": [container]}
    return {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "front"}} | {
        "spec": {"template": {"spec": pod}}
    }


@pytest.mark.parametrize(
    "volume",
    [
        {"projected": {"sources": [TOKEN, DOWNWARD, {"secret": {"name": "s"}}], "defaultMode": 292}},
        {"configMap": {"name": "c", "items": [{"key": "k", "path": "a/b..c"}]}},
        {"emptyDir": {}},
    ],
)
def test_what_needs_no_flag_is_accepted(volume: dict[str, Any]) -> None:
    """Tokens of service accounts and the downward API in projected volumes, and part of a volume as a mount."""
    assert service_faults(service(volume)) == []
    assert service_faults(service(volume, {"mountPath": "/a", "subPath": "x/y"}, {"mountPath": "/b"})) == []


def test_a_volume_of_an_image_needs_its_feature() -> None:
    """Refused by default with the name of the feature; accepted where config-features enables it."""
    volume = {"image": {"reference": "registry.example.com/model:7", "pullPolicy": "IfNotPresent"}}
    ((path, message),) = service_faults(service(volume))
    assert path.endswith("volumes[0].image")
    assert FLAG in message
    assert service_faults(service(volume), features={FLAG}) == []
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config-features"}, "data": {FLAG: "enabled"}}
    assert enabled_features([Resource(body, "f")]) == {FLAG}
    body["data"] = {FLAG: "disabled"}
    assert enabled_features([Resource(body, "f")]) == set()


def test_a_part_of_a_volume_is_mounted(tmp_path: Path) -> None:
    """The same volume at two places: whole, and the file that subPath names; a missing part is made as a directory."""
    body = service({"configMap": {"name": "c"}}, {"mountPath": "/a"}, {"mountPath": "/b", "subPath": "K"})
    template = Template.from_body(body["spec"]["template"])
    assert template.mounts == [Mount("v", "/a"), Mount("v", "/b", "K")]
    config = Resource({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"K": "text"}}, "f")
    places = Configuration([config]).materialise(template, tmp_path)
    assert places["/b"].read_text() == "text"
    assert places["/a"] / "K" == places["/b"]
    empty = Template.from_body(service({"emptyDir": {}}, {"mountPath": "/b", "subPath": "x/y"})["spec"]["template"])
    assert Configuration([]).materialise(empty, tmp_path / "e")["/b"].is_dir()
