"""Start a platform from its manifests, and run it until it is told to stop."""

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis.server.limits import raise_descriptor_limit
from kubeyaml import edits
from kubeyaml.annotations import SCALING, annotations_of, canonical
from kubeyaml.configuration import Configuration, unfilled_volumes
from kubeyaml.errors import ManifestError
from kubeyaml.eventing import bind_sinks, is_eventing, routing
from kubeyaml.manifests import load
from kubeyaml.resources import Resource
from kubeyaml.validation import enabled_features, faults
from localkn import control, views
from localkn.broker import broker_service
from localkn.commands import Commands
from localkn.companion import Companion
from localkn.envoy import EnvoyIngress, executable
from localkn.errors import PlatformError, RefusedError, ServiceNotReadyError, UsageError
from localkn.platform import Platform
from localkn.processes import Processes, is_free, reserved
from localkn.services import KnativeService
from localkn.state import PlatformDirectory

# Kinds that localkn uses, or that have no effect on the loopback.
_USED = {"ConfigMap", "Secret", "Namespace", "EventType", "NetworkPolicy"}
_VISIBILITY = "networking.knative.dev/visibility"
_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Options:
    """The flags of `up`."""

    manifests: Path
    commands: Path
    state_dir: PlatformDirectory
    port: int
    direct: bool = False
    public: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    env_override: Sequence[str] = ()
    dashboard_port: int | None = None
    reports: Path | None = None
    host: Sequence[str] = ()


async def run(options: Options, *, ready: Callable[[str], None]) -> None:
    """
    Run until SIGINT, SIGTERM or `down`.

    Args:
        options: The flags of `up`.
        ready: Called with a text for the user once every Service is ready.

    Raises:
        LocalknError: The platform cannot start, or a Service does not become ready; nothing is left running.
    """
    raise_descriptor_limit()  # Envoy and the instances inherit it.
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # The two ports that the user chose come first, so that the platform draws neither for a Service.
    with options.state_dir.held(), _public_port(options.port), _dashboard_listener(options.dashboard_port) as listener:
        async with Processes() as processes:
            platform = compose(options, processes)
            await platform.reports.listen(options.state_dir.socket("stats"))
            async with control.serving(options.state_dir.socket("control"), _handlers(platform, stop)):
                if listener is None:
                    await _serve(platform, stop=stop, ready=ready)
                    return
                companion = Companion(
                    listener,
                    options.state_dir,
                    trusted=options.tls_cert and options.tls_cert.absolute(),
                    reports=options.reports and options.reports.absolute(),
                )
                async with companion.beside(processes) as url:
                    platform.dashboard = url
                    await _serve(platform, stop=stop, ready=ready)


def check(options: Options) -> None:
    """
    Check everything that can be checked before anything is trained, built or started.

    Raises:
        UsageError: Flags contradict each other.
        PlatformError: The port is taken, or a platform of another process runs in the state directory.
    """
    _certificate(options, exists=False)
    options.state_dir.check()
    with _public_port(options.port):
        pass


@contextlib.contextmanager
def _public_port(port: int) -> Iterator[None]:
    with reserved(port) as is_reserved:
        if not is_reserved:
            raise PlatformError(f"port {port} is taken; choose another with --port")
        yield


@contextlib.contextmanager
def _dashboard_listener(port: int | None) -> Iterator[socket.socket | None]:
    """
    Listen on *port*, or on a free one instead of 0 and of a port in use; None yields None.

    The platform listens itself, so that no other program takes the port before the dashboard starts or restarts.
    """
    if port is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", port if 0 < port <= 65535 and is_free(port) else 0)) as listener:
        yield listener


def compose(options: Options, processes: Processes) -> Platform:
    """
    Make a platform from the manifests; nothing runs yet.

    Raises:
        LocalknError: The manifests have faults; the message lists all of a kind.
    """
    resources, services, features = _checked(options.manifests)
    bind_sinks(resources)
    routes = routing(resources)
    broker, commands = broker_service(routes, options.state_dir)
    for change in options.env_override:
        edits.override([*services, broker], change)
    certificate = _certificate(options)
    no_envoy = not options.direct and executable() is None
    platform = Platform(
        configuration=Configuration(resources),
        commands=Commands(options.commands, built_in=commands),
        state=options.state_dir,
        processes=processes,
        public=_public(services, options.public),
        url=f"http{'s' if certificate else ''}://127.0.0.1:{options.port}",
        notes=[
            *_notes(resources, direct=options.direct or no_envoy),
            *(["No wheel of Envoy for this platform: running as with --direct"] * no_envoy),
        ],
        direct=options.direct or no_envoy,
        brokers=routes.brokers,
        features=features,
    )
    if not platform.direct:
        platform.ingress = EnvoyIngress(
            options.state_dir,
            processes,
            port=options.port,
            certificate=certificate,
            hosts=options.host,
            changed=platform.changed,
        )
    for service in services:
        platform.add(service.body, namespace=service.namespace)
    if routes.brokers:
        platform.add(broker.body, namespace=broker.namespace, built_in=True)
    return platform


def _checked(manifests: Path) -> tuple[Sequence[Resource], list[Resource], set[str]]:
    """Return the objects of *manifests*, the Services among them, and the enabled features of pods."""
    resources = load(manifests)
    services = [resource for resource in resources if resource.is_service]
    features = enabled_features(resources)
    found = [fault for resource in resources for fault in faults(resource, features=features)]
    if found or not services:
        raise ManifestError(found or [f"{manifests}: no Knative Service (serving.knative.dev/v1) in it"])
    return resources, services, features


async def _serve(platform: Platform, *, stop: asyncio.Event, ready: Callable[[str], None]) -> None:
    platform.ingress.publish(platform.picture())
    await platform.ingress.start()
    running = asyncio.create_task(platform.run())
    told = asyncio.create_task(stop.wait())
    settled = asyncio.create_task(platform.until(lambda: all(s.is_settled() for s in platform.services.values())))
    try:
        await asyncio.wait([running, told, settled], return_when=asyncio.FIRST_COMPLETED)
        if settled.done():
            if failed := [service for service in platform.services.values() if service.problem()]:
                raise ServiceNotReadyError("\n".join(_explained(platform, service) for service in failed))
            shown = [f"dashboard at {platform.dashboard}/_dashboard"] if platform.dashboard else []
            events = [f"Broker {name} takes events at {url}" for name, url in platform.broker_urls().items()]
            ready("\n".join([*platform.notes, *events, *shown, f"{platform.public} is ready at {platform.url}"]))
        await asyncio.wait([running, told], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (told, settled, running):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def _handlers(platform: Platform, stop: asyncio.Event) -> dict[str, control.VerbHandler]:
    async def status(_: dict[str, Any]) -> Any:
        return await views.status(platform)

    async def services(_: dict[str, Any]) -> Any:
        return [views.service_object(platform, service) for service in platform.described()]

    async def revisions(_: dict[str, Any]) -> Any:
        return [views.revision_object(s, revision) for s in platform.described() for revision in s.revisions.values()]

    async def apply(request: dict[str, Any]) -> None:
        service, renewed = platform.apply(request["service"])
        if request["wait_s"]:
            await _settled(platform, service, within_s=request["wait_s"], traffic_only=not renewed)

    async def end(_: dict[str, Any]) -> None:
        stop.set()

    async def pass_on(request: dict[str, Any]) -> Any:
        """Pass a request on to the broker."""
        if not platform.brokers:
            raise RefusedError("the manifests hold no Broker")
        try:
            return await asyncio.to_thread(control.call, platform.state.socket("broker"), **request)
        except PlatformError as error:
            raise RefusedError("the broker is not running; it is being restarted") from error

    served = {"status": status, "services": services, "revisions": revisions, "apply": apply, "stop": end}
    return {**served, "events": pass_on, "redrive": pass_on, "discard": pass_on, "keep": pass_on}


async def _settled(platform: Platform, service: KnativeService, *, within_s: float, traffic_only: bool) -> None:
    try:
        async with asyncio.timeout(within_s):
            await platform.until(lambda: service.is_settled(traffic_only=traffic_only))
    except TimeoutError as error:
        raise RefusedError(f"timeout: service '{service.name}' not ready after {within_s} seconds") from error
    if service.problem(traffic_only=traffic_only):
        raise RefusedError(f"RevisionFailed: {_explained(platform, service)}")


def _explained(platform: Platform, service: KnativeService) -> str:
    """Explain why a Service is not as described, and add the end of its newest log."""
    logs = sorted(platform.state.logs.glob(f"{service.latest_created.name}-*.log"), key=lambda log: log.stat().st_mtime)
    tail = logs[-1].read_text(errors="replace").splitlines()[-_TAIL_LINES:] if logs else []
    return "\n".join([f"Service {service.name}: {service.problem()}", *(f"    {line}" for line in tail)])


def _notes(resources: Sequence[Resource], *, direct: bool) -> list[str]:
    ignored = [r for r in resources if not (r.is_service or is_eventing(r) or r.kind in _USED)]
    annotations = {r.name: canonical(annotations_of(r.body["spec"]["template"])) for r in resources if r.is_service}
    to_zero = [name for name, given in annotations.items() if direct and given.get(f"{SCALING}/min-scale", "0") == "0"]
    return (
        [f"{r.kind} {r.name}: ignored on this machine" for r in ignored]
        + [f"Service {name}: min-scale 0 runs as 1 without an ingress" for name in to_zero]
        + [
            f"Service {r.name}: volume {name} holds no {kind} on this machine"
            for r in resources
            if r.is_service
            for name, kind in unfilled_volumes(r.body["spec"]["template"])
        ]
    )


def _public(services: Sequence[Resource], wanted: str | None) -> str:
    names = [service.name for service in services]
    public = [s.name for s in services if (s.body["metadata"].get("labels") or {}).get(_VISIBILITY) != "cluster-local"]
    if wanted is not None and wanted not in names:
        raise ManifestError([f"--public {wanted}: there is no such Service, only {', '.join(names)}"])
    if wanted is None and len(public) != 1:
        raise ManifestError(
            [f"the port leads to one public Service; name it with --public: {', '.join(public or names)}"]
        )
    return wanted or public[0]


def _certificate(options: Options, *, exists: bool = True) -> tuple[Path, Path] | None:
    if options.tls_cert is None or options.tls_key is None:
        if options.tls_cert or options.tls_key:
            raise UsageError("--tls-cert and --tls-key belong together")
        return None
    if options.direct:
        raise UsageError("--direct has no ingress that could end TLS; leave out --direct or --tls-cert and --tls-key")
    if not exists:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise PlatformError(
            f"{options.tls_cert} and {options.tls_key} are not a certificate and its key: {error}"
        ) from error
    return options.tls_cert.absolute(), options.tls_key.absolute()
