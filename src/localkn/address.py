"""The status of a running platform, and the URLs at which it answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localkn import control
from localkn.errors import LocalknError
from localkn.state import PlatformDirectory


def read_status(folder: Path) -> dict[str, Any]:
    """
    Return the status of the platform whose files are in *folder*, as `localkn status --json` prints it.

    Raises:
        LocalknError: The platform is not running.
    """
    status: dict[str, Any] = control.call(PlatformDirectory(folder.absolute()).socket("control"), "status")
    return status


def ready_instances(service: Mapping[str, Any]) -> int:
    """Return the number of ready instances of a Service of `read_status`, without those of revisions without traffic."""
    return sum(int(each["ready"]) for each in service["revisions"] if each["traffic_percent"])


def running_url(folder: Path) -> str | None:
    """Return the public URL of the platform whose files are in *folder*; None if it is not running."""
    try:
        return str(read_status(folder)["url"])
    except LocalknError:
        return None


def dashboard_url(folder: Path) -> str:
    """
    Return the URL of the dashboard of the platform in *folder*.

    Raises:
        LocalknError: The platform is not running, or it has no dashboard.
    """
    dashboard: str | None = read_status(folder)["dashboard"]
    if dashboard is None:
        raise LocalknError(f"the platform in {folder} has no dashboard; start it again with `up`")
    return dashboard


def broker_url(folder: Path, broker: str) -> str:
    """
    Return the URL at which a Broker (`[NAMESPACE/]NAME`) of the platform in *folder* accepts events.

    Raises:
        LocalknError: The platform is not running, or it has no such Broker.
    """
    brokers = read_status(folder)["brokers"]
    name = broker if "/" in broker else f"default/{broker}"
    if name not in brokers:
        raise LocalknError(f"no Broker {name} is running; running: {', '.join(brokers) or 'none'}")
    return str(brokers[name])


def chosen_url(folder: Path, *, url: str | None, port: int | None, default_port: int) -> str:
    """Return the first that is known: *url*, *port* on this machine, the platform in *folder*, the default port."""
    if url:
        return url
    running = running_url(folder)
    if port is None:
        return running or f"http://127.0.0.1:{default_port}"
    # The port alone does not say whether it speaks TLS; the platform may.
    return running if running and running.endswith(f":{port}") else f"http://127.0.0.1:{port}"
