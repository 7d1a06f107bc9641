"""The settings of the Services, as their templates declare them."""

from collections.abc import Iterable, Mapping
from typing import Any

# The functions' word for a setting that is off.
_OFF = "-"


def settings_of(service: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables of a Kubernetes Service object that have a value."""
    containers = service["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for one in containers for each in one.get("env", ()) if "value" in each}


def first_setting(services: Iterable[Mapping[str, Any]], name: str) -> str:
    """Return the setting of the first of *services* that declares it; "" if none does, or if it is off."""
    found = next((declared[name] for each in services if name in (declared := settings_of(each))), _OFF)
    return "" if found == _OFF else found


def revisions_by_url(services: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the revision, with its tag, at the address of each tag."""
    targets = (target for each in services for target in (each.get("status") or {}).get("traffic") or ())
    return {each["url"]: f"{each['revisionName']} #{each['tag']}" for each in targets if "url" in each}
