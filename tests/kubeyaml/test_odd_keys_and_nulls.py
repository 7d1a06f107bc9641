"""Nulls and keys of an object that a person or a program wrote by mistake."""

from typing import Any

import pytest

from kubeyaml.resources import Resource
from kubeyaml.validation import faults, service_faults


def service(*, annotations: Any = None, **template: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "front"},
        "spec": {
            "template": {
                "metadata": {"annotations": annotations},
                "spec": {"containers": [{"image": "front"}], **template},
            }
        },
    }


@pytest.mark.parametrize("name", ["min-scale", "minScale", "target-burst-capacity", "class", "metric"])
def test_an_annotation_that_is_null_is_refused(name: str) -> None:
    """An annotation is a text, so kubectl refuses null, whether or not Knative knows the annotation."""
    for key in (f"autoscaling.knative.dev/{name}", "example.com/note"):
        ((path, message),) = service_faults(service(annotations={key: None}))
        assert path.startswith("spec.template.metadata.annotations.")
        assert message == "must not be null"


def test_a_field_that_is_null_is_absent() -> None:
    """Programs print fields without a value as null, for example `creationTimestamp`."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "creationTimestamp": None}, "data": None}
    assert faults(Resource(body, "f")) == []
    assert service_faults(service(annotations=None, volumes=None)) == []


@pytest.mark.parametrize("key", [".needs", ".other", ".one", ".not", ".key"])
def test_the_words_of_the_rules_are_no_fields(key: str) -> None:
    """A key that spells an entry of a shape is an unknown field, and an annotation of that name is text."""
    for value in ([".needs"], {"a": "b"}, "text"):
        assert [message for _, message in service_faults(service(**{key: value}))] == [
            "is not known to Knative, or forbidden"
        ]
    assert service_faults(service(annotations={key: "text"})) == []
