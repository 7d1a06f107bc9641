"""The broker as a Service of the platform: `broker.yaml` with its environment filled in."""

import sys
from pathlib import Path

import msgspec

from kubeyaml.edits import container, set_env
from kubeyaml.eventing import Routing
from kubeyaml.resources import Resource, read_file
from localkn.commands import Command
from localkn.state import PlatformDirectory


def broker_service(routing: Routing, state: PlatformDirectory) -> tuple[Resource, dict[str, Command]]:
    """Return the Service that serves all Brokers of *routing*, and the command of its image."""
    (service,) = read_file(Path(__file__).with_name("broker.yaml"))
    image = container(service.body)["image"]
    routes = msgspec.json.encode(routing).decode().replace("$", "$$")  # a variable's value is expanded
    variables = {"ROUTING": routes, "QUEUE": state.events / "queue.db", "CONTROL": state.socket("broker")}
    set_env(service.body, [f"{name}={value}" for name, value in variables.items()])
    return service, {image: Command([sys.executable, "-m", image], Path.cwd())}
