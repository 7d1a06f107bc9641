"""
The production entry of every function: `python -m chassis.server --source functions/NAME/main.py`.

Loads the function through functions-framework and serves it with uvicorn on uvloop and httptools, one process per
instance. Exit status: 0 after a drain, 1 when the function cannot start, 2 for wrong settings.
"""

# ruff: noqa: E402 - the imports come after the collector is switched off

import argparse
import gc
import os
import sys

from chassis.wake import wake

# Functions that scaled to zero start in parallel with this one.
wake(os.environ)
# OpenBLAS would start a thread for each CPU of the node. These threads spin before they sleep, which takes a quarter of
# the CPU of rank_items' start, and no function uses them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Imports make objects that stay. Searching them for garbage takes an eighth of the start; `settle_memory` ends the pause.
gc.disable()
# httpx would import its command line with click, rich and pygments, a seventh of the CPU of recommend's start.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

from chassis.environment import SettingsError
from chassis.server.asgi import Shell, service_of
from chassis.server.config import configure
from chassis.server.drain import DrainingServer, listen
from chassis.server.framework import create_asgi_app
from chassis.server.limits import ServerLimits
from chassis.server.protocol import FunctionConnection
from chassis.server.refusals import REFUSALS
from chassis.telemetry.logs import configure_logs


def main() -> int:
    """Serve one function until a signal stops it."""
    parser = argparse.ArgumentParser(prog="chassis.server", description="Serve one function.")
    parser.add_argument("--source", required=True, help="the function's main.py")
    parser.add_argument("--target", default="handle", help="the function's name in it")
    arguments = parser.parse_args()
    configure_logs()
    try:
        framework = create_asgi_app(arguments.target, arguments.source, "http")
    except SettingsError as error:
        print(*(f"{arguments.source}: {fault}" for fault in error.faults), sep="\n", file=sys.stderr)  # noqa: T201
        return 2
    # The framework itself refuses unknown methods, /robots.txt and /favicon.ico.
    framework.exception_handlers.update(REFUSALS)
    service = service_of(framework)
    try:
        listener = listen(service.settings)
    except OSError as error:
        print(f"cannot listen on {service.settings.host}:{service.settings.port}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    shell = Shell(framework, service, on_failed_start=lambda: server.fail())  # noqa: PLW0108 - the server is made below
    settings = service.settings
    config = configure(
        shell,
        connection=FunctionConnection,
        limits=ServerLimits(body_s=max(ServerLimits.body_s, settings.max_timeout_s)),
        keep_alive_s=settings.keep_alive_s,
        loop="uvloop",
        lifespan="on",
        log_config=None,
        timeout_graceful_shutdown=settings.drain_timeout_s,
    )
    server = DrainingServer(config, service, listener)
    server.run(sockets=[listener])
    return server.exit_status


if __name__ == "__main__":
    sys.exit(main())
