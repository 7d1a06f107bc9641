"""Starting a platform from its manifests, and keeping it until it is told to stop."""

import asyncio
import contextlib
import copy
import signal
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localkn import control, edits
from localkn.commands import Commands
from localkn.environment import Configuration
from localkn.envoy import executable
from localkn.errors import ManifestError, NotReadyError, PlatformError, RefusedError
from localkn.manifests import Resource, load
from localkn.objects import revision_object, service_object
from localkn.platform import Platform, World
from localkn.processes import Ports, Processes, is_free
from localkn.services import Service
from localkn.state import StateDirectory
from localkn.stats import Reports
from localkn.status import snapshot
from localkn.validation import service_faults

_USED = {"ConfigMap", "Secret", "Namespace"}
_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Options:
    """What `up` was asked for."""

    manifests: Path
    commands: Path
    state: StateDirectory
    port: int
    direct: bool = False
    public: str | None = None
    tls: tuple[Path, Path] | None = None
    overrides: Sequence[str] = ()


async def run(options: Options, *, ready: Callable[[str], None]) -> None:
    """
    Run until SIGINT, SIGTERM or `down`.

    Args:
        options: What to run, and where.
        ready: Called with what to tell the user once every Service is ready.

    Raises:
        LocalknError: It cannot be started, or a Service does not become ready; nothing is left running.
    """
    resources = load(options.manifests)
    services = _services(resources, options.overrides)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with options.state.held():
        if not is_free(options.port):
            raise PlatformError(f"port {options.port} is taken; choose another with --port")
        async with Processes() as processes:
            platform = _platform(options, resources, services, processes)
            await platform.world.reports.listen(options.state.socket("stats"))
            async with control.serving(options.state.socket("control"), _handlers(platform, stop)):
                await _serve(platform, stop=stop, ready=ready)


async def _serve(platform: Platform, *, stop: asyncio.Event, ready: Callable[[str], None]) -> None:
    await platform.ingress.start(platform.picture())
    running = asyncio.create_task(platform.run())
    told = asyncio.create_task(stop.wait())
    settled = asyncio.create_task(platform.until(lambda: all(s.is_settled() for s in platform.services.values())))
    try:
        await asyncio.wait([running, told, settled], return_when=asyncio.FIRST_COMPLETED)
        if settled.done():
            if failed := [service for service in platform.services.values() if service.problem()]:
                raise NotReadyError("\n".join(_explained(platform, service) for service in failed))
            ready("\n".join([*platform.world.notes, f"{platform.world.public} is ready at {platform.world.url}"]))
        await asyncio.wait([running, told], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (told, settled, running):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def _explained(platform: Platform, service: Service) -> str:
    """Why a Service is not as described, with the end of its newest log."""
    logs = sorted(
        platform.world.state.logs.glob(f"{service.latest_created.name}-*.log"), key=lambda log: log.stat().st_mtime
    )
    tail = logs[-1].read_text(errors="replace").splitlines()[-_TAIL_LINES:] if logs else []
    return "\n".join([f"Service {service.name}: {service.problem()}", *(f"    {line}" for line in tail)])


def _platform(
    options: Options, resources: Sequence[Resource], services: Sequence[Resource], processes: Processes
) -> Platform:
    ignored = [
        f"{r.kind} {r.name}: ignored on this machine" for r in resources if not r.is_service and r.kind not in _USED
    ]
    to_zero = [
        f"Service {service.name}: min-scale 0 runs as 1 on this machine, nothing could wake it up"
        for service in services
        if _annotations(service).get("autoscaling.knative.dev/min-scale", "0") == "0"
    ]
    envoy_is_missing = not options.direct and executable() is None
    if envoy_is_missing:
        ignored.append("Envoy has no wheel for this platform: running as with --direct, one instance each, no scaling")
    world = World(
        configuration=Configuration(resources),
        commands=Commands(options.commands),
        state=options.state,
        processes=processes,
        reports=Reports(),
        ports=Ports(),
        public=_public(services, options.public),
        public_port=options.port,
        direct=options.direct or envoy_is_missing,
        certificate=_certificate(options),
        notes=[*ignored, *to_zero],
    )
    platform = Platform(world)
    for service in services:
        platform.add(service.body, namespace=service.namespace)
    return platform


def _certificate(options: Options) -> tuple[Path, Path] | None:
    if options.tls is None:
        return None
    if options.direct:
        raise PlatformError("--direct has no ingress that could end TLS")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*options.tls)
    except (OSError, ssl.SSLError) as error:
        raise PlatformError(f"{options.tls[0]} and {options.tls[1]} are no certificate and its key: {error}") from error
    return options.tls[0].absolute(), options.tls[1].absolute()


def _annotations(service: Resource) -> dict[str, str]:
    return (service.body["spec"]["template"].get("metadata") or {}).get("annotations") or {}


def _services(resources: Sequence[Resource], overrides: Sequence[str]) -> list[Resource]:
    services = [Resource(copy.deepcopy(r.body), r.source) for r in resources if r.is_service]
    if not services:
        raise ManifestError(["the manifests hold no Knative Service (serving.knative.dev/v1)"])
    faults = [s.fault(path, message) for s in services for path, message in service_faults(s.body)]
    if faults:
        raise ManifestError(faults)
    for override in overrides:
        _override(services, override)
    return services


def _override(services: Sequence[Resource], override: str) -> None:
    name, _, variable = override.partition("=")[0].rpartition(":")
    chosen = [service for service in services if name in {"", service.name}]
    if "=" not in override or not variable or not chosen:
        raise ManifestError(
            [f"--env-override {override}: must be [SERVICE:]NAME=VALUE with a Service of the manifests"]
        )
    for service in chosen:
        edits.set_env(service.body, [override.removeprefix(f"{name}:") if name else override])


def _public(services: Sequence[Resource], wanted: str | None) -> str:
    names = [service.name for service in services]
    if wanted is not None:
        if wanted not in names:
            raise ManifestError([f"--public {wanted}: there is no such Service, only {', '.join(names)}"])
        return wanted
    visibility = "networking.knative.dev/visibility"
    public = [s.name for s in services if (s.body["metadata"].get("labels") or {}).get(visibility) != "cluster-local"]
    if len(public) != 1:
        which = "none of them" if not public else ", ".join(public)
        raise ManifestError([f"the port leads to one public Service, {which} could be it; name it with --public"])
    return public[0]


def _handlers(platform: Platform, stop: asyncio.Event) -> dict[str, control.Handler]:
    async def status(_: dict[str, Any]) -> Any:
        return await snapshot(platform, now=time.monotonic())

    async def end(_: dict[str, Any]) -> None:
        stop.set()

    async def services(_: dict[str, Any]) -> Any:
        return [service_object(platform, service) for service in platform.services.values()]

    async def revisions(request: dict[str, Any]) -> Any:
        chosen = [s for s in platform.services.values() if request.get("service") in {None, s.name}]
        return [revision_object(service, revision) for service in chosen for revision in service.revisions.values()]

    async def apply(request: dict[str, Any]) -> None:
        service, renewed = platform.apply(request["service"])
        if request["wait_s"]:
            await _settled(platform, service, within_s=request["wait_s"], traffic_only=not renewed)

    return {"status": status, "stop": end, "services": services, "revisions": revisions, "apply": apply}


async def _settled(platform: Platform, service: Service, *, within_s: float, traffic_only: bool) -> None:
    try:
        async with asyncio.timeout(within_s):
            await platform.until(lambda: service.is_settled(traffic_only=traffic_only))
    except TimeoutError as error:
        raise RefusedError(f"timeout: service '{service.name}' not ready after {within_s} seconds") from error
    if service.problem(traffic_only=traffic_only):
        raise RefusedError(f"RevisionFailed: {_explained(platform, service)}")
