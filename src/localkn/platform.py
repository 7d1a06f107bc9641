"""
The running platform: carries out the decisions of services and revisions.

One loop compares the actual state with the wanted one after each change of an instance, a decision or a Service.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from kubeyaml.configuration import Configuration, expand
from kubeyaml.errors import ManifestError
from kubeyaml.templates import Template
from kubeyaml.validation import service_faults
from localkn.activator import Door
from localkn.commands import Commands
from localkn.environment import inherited, localised
from localkn.errors import RefusedError
from localkn.ingress import Endpoint, Ingress, IngressCluster, Picture, Route
from localkn.instances import Instance, InstanceState, Launch
from localkn.kpa.autoscaler import TICK_S
from localkn.processes import Processes, free_port
from localkn.revisions import Revision
from localkn.services import KnativeService
from localkn.state import PlatformDirectory
from localkn.stats import LoadReport, Reports

_END_S = 10.0
_QUEUE = 10_000
"""Requests that may wait for a revision in the activator, as in Knative."""


@dataclass(eq=False)
class Platform:
    """
    All Services of one state directory.

    Args:
        configuration: ConfigMaps and Secrets.
        commands: The local command of each image.
        state: Directory of all files.
        processes: Starts instances.
        public: Name of the Service that `url` leads to.
        url: Its URL on this machine.
        notes: Differences from a cluster, shown at the start.
        brokers: The Brokers of the manifests, `NAMESPACE/NAME` each.
        direct: No ingress: one instance each, the public one on the port of `url`.
        features: Features of Knative that the manifests enable beyond its defaults.
        dashboard: URL of the dashboard; None without one.
    """

    configuration: Configuration
    commands: Commands
    state: PlatformDirectory
    processes: Processes
    public: str
    url: str
    notes: Sequence[str]
    direct: bool
    dashboard: str | None = None
    ingress: Ingress = field(default_factory=Ingress)
    reports: Reports = field(default_factory=Reports)
    services: dict[str, KnativeService] = field(default_factory=dict)
    brokers: Sequence[str] = ()
    features: Collection[str] = ()
    _own_ports: dict[str, int] = field(default_factory=dict)
    _doors: dict[str, Door] = field(default_factory=dict)
    _lives: set[asyncio.Task[None]] = field(default_factory=set)
    _doorkeepers: set[asyncio.Task[None]] = field(default_factory=set)
    _change: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = field(default_factory=list)
    _started: int = 0

    def add(self, body: Mapping[str, Any], *, namespace: str, built_in: bool = False) -> None:
        """
        Add a Service before the platform runs.

        Args:
            body: The Service.
            namespace: Its namespace.
            built_in: Whether the platform itself adds the Service: one instance, not shown.

        Raises:
            LocalknError: The Service cannot run here.
        """
        name = body["metadata"]["name"]
        if name in self.services:
            raise ManifestError([f"Service {name}: there are two of that name, in different namespaces"])
        is_direct = self.direct and name == self.public
        self._own_ports[name] = int(self.url.rpartition(":")[2]) if is_direct else free_port()
        fixed_scale = 1 if self.direct or built_in else None
        self.services[name] = KnativeService(name, namespace, fixed_scale=fixed_scale, built_in=built_in)
        self.apply(body)

    def apply(self, body: Mapping[str, Any]) -> tuple[KnativeService, bool]:
        """
        Apply a Service's new description; `until` waits for its effect.

        Returns:
            The Service, and whether it has a new revision.

        Raises:
            RefusedError: The Service does not exist, or Knative would refuse the description.
            ManifestError: An object or a command is missing.
        """
        service = self.services.get((body.get("metadata") or {}).get("name", ""))
        if service is None or (service.built_in and service.revisions):
            raise RefusedError("no such Service: `up` takes Services from the manifests")
        if faults := service_faults(body, features=self.features):
            raise RefusedError("\n".join(f"{path}: {message}" for path, message in faults))
        if self.direct and service.revisions:
            raise RefusedError("with --direct nothing can take over from a running instance; start without it")
        template = Template.from_body(body["spec"]["template"])
        self.commands.find(template.image)
        if missing := list(self.configuration.missing(template)):
            raise ManifestError([f"Service {service.name}: {fault}" for fault in missing])
        revision = service.apply(body, now=time.monotonic())
        self.changed()
        return service, revision is not None

    def changed(self) -> None:
        """Wake the loop."""
        self._change.set()

    async def run(self) -> None:
        """Run until cancelled, then end every instance and the ingress."""
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self.ingress.observe())
                loops.create_task(self._keep_time())
                loops.create_task(self._reconcile_on_change())
        finally:
            processes = [instance.process for _, r in self.revisions() for instance in r.instances if instance.process]
            await asyncio.gather(*(process.end(grace_s=_END_S) for process in processes), self.ingress.stop())
            await asyncio.gather(*self._lives)
            for doorkeeper in self._doorkeepers:
                doorkeeper.cancel()
            await asyncio.gather(*self._doorkeepers, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when *condition* holds; the loop checks it after every change."""
        if not condition():
            held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((condition, held))
            await held

    def revisions(self) -> Iterator[tuple[KnativeService, Revision]]:
        """Yield every revision with its Service."""
        return ((service, revision) for service in self.services.values() for revision in service.revisions.values())

    def described(self) -> list[KnativeService]:
        """Return the Services of the manifests."""
        return [service for service in self.services.values() if not service.built_in]

    def url_of(self, service: KnativeService, *, tag: str = "") -> str:
        """Return the URL of a Service on this machine, or of one of its tags."""
        if tag:
            return self.url.replace("127.0.0.1", f"{tag}-{service.host}.localhost")
        return self.url if service.name == self.public else self.address_of(service)

    def address_of(self, service: KnativeService) -> str:
        """Return the URL at which other Services and Triggers reach a Service on this machine."""
        return f"http://127.0.0.1:{self._own_ports[service.name]}"

    def broker_urls(self) -> dict[str, str]:
        """Return the URL on this machine at which each Broker takes events."""
        places = [self.url_of(service) for service in self.services.values() if service.built_in]
        return {broker: f"{place}/{broker}" for place in places for broker in self.brokers}

    def picture(self) -> Picture:
        """Return the configuration that the ingress should have now."""
        services = self.services.values()
        routed = {target.revision for service in services for target in (*service.routed, *service.targets())}
        served = [revision for _, revision in self.revisions() if revision.instances or revision.name in routed]
        return Picture([self._cluster(r) for r in served], [self._route(service) for service in services])

    def door(self, revision: Revision) -> Door | None:
        """Return the activator's entrance of a revision; None if the revision was never at zero."""
        return self._doors.get(revision.name)

    def _opened_door(self, revision: Revision) -> Door:
        if revision.name not in self._doors:
            door = Door(http2=revision.template.http2, queue_limit=_QUEUE, woken=lambda: self._wake(revision))
            self._doors[revision.name] = door
            self._doorkeepers.add(asyncio.create_task(door.serve()))
        return self._doors[revision.name]

    def _wake(self, revision: Revision) -> None:
        revision.wake(time.monotonic())
        self.changed()

    def _cluster(self, revision: Revision) -> IngressCluster:
        limit, settings = revision.template.container_concurrency, revision.settings
        # As queue-proxy: ten times the limit of every instance. With a burst capacity the activator's queue is before it.
        queue = 10_000 if settings.target_burst_capacity else 10 * limit * (settings.max_scale or 1000)
        draining = [instance for instance in revision.instances if instance.state is InstanceState.DRAINING]
        ports = [instance.port for instance in revision.ready]
        if revision.is_held:
            ports = [self._opened_door(revision).port]
        return IngressCluster(
            revision.name,
            [Endpoint(port) for port in ports] + [Endpoint(i.port, draining=True) for i in draining],
            container_concurrency=limit,
            queue_limit=queue if limit else 0,
            http2=revision.template.http2,
        )

    def _route(self, service: KnativeService) -> Route:
        # Traffic shares its limits: a split cannot cut requests to one revision shorter than to another.
        templates = [service.revisions[target.revision].template for target in service.routed]
        return Route(
            service.host,
            self._own_ports[service.name],
            targets=service.routed,
            timeout_s=max((template.timeout_s for template in templates), default=1),
            idle_timeout_s=max((template.idle_timeout_s for template in templates), default=0),
            public=service.name == self.public,
        )

    async def _keep_time(self) -> None:
        """Record the load every second, and decide every other second."""
        second = int(time.monotonic())
        while True:
            second += 1
            await asyncio.sleep(second - time.monotonic())
            for service, revision in self.revisions():
                if not service.built_in:
                    self._measure(revision)
                if second % TICK_S == 0:
                    revision.decide(time.monotonic())
            self.changed()

    def _measure(self, revision: Revision) -> None:
        # Requests for an instance at its hard limit queue in the ingress, so only the ingress knows the whole load.
        limited = revision.template.container_concurrency > 0
        loads = [
            (None if limited else self.reports.newest(instance.name)) or self._seen_load(revision, instance.port)
            for instance in revision.ready
        ]
        waiting = self._waiting_load(revision)
        if loads or waiting:
            concurrency, requests = sum(load.concurrency for load in loads), sum(load.requests for load in loads)
            revision.measure(time.monotonic(), concurrency=concurrency + waiting, requests=requests)

    def _waiting_load(self, revision: Revision) -> float:
        """Return the load of the requests that wait for an instance; at a hard limit, some of them wait in Envoy."""
        door = self.door(revision)
        if door is None:
            return 0.0
        limited = revision.template.container_concurrency > 0 and revision.is_held
        return door.report(seen=self.ingress.load(revision.name, door.port).concurrency if limited else 0.0)

    def _seen_load(self, revision: Revision, port: int) -> LoadReport:
        """Return the load of an instance as Envoy and the activator see it."""
        load, door = self.ingress.load(revision.name, port), self.door(revision)
        return replace(load, concurrency=load.concurrency + door.forwarded(port)) if door else load

    async def _reconcile_on_change(self) -> None:
        while True:
            await self._change.wait()
            self._change.clear()
            self._reconcile(time.monotonic())

    def _reconcile(self, now: float) -> None:
        for service in self.services.values():
            service.step(now, serving=self._is_serving)
        for service, revision in self.revisions():
            plan = revision.plan(now)
            for _ in range(plan.start):
                self._start(service, revision)
            for instance in plan.stop:
                instance.stop()
            if door := self.door(revision):
                door.open([instance.port for instance in revision.ready])
                if failure := revision.take_start_failure():
                    door.refuse(failure)
        self.ingress.publish(self.picture())
        for condition, held in self._waiting:
            if condition() and not held.done():
                held.set_result(None)
        self._waiting = [waiting for waiting in self._waiting if not waiting[1].done()]

    async def _drained(self, revision: Revision, ending: Instance) -> None:
        await self.ingress.drained(revision.name, ending.port)
        if door := self.door(revision):
            await door.finished(ending.port)

    def _is_serving(self, revision: str) -> bool:
        return any(seen.healthy for seen in self.ingress.seen(revision).values())

    def _start(self, service: KnativeService, revision: Revision) -> None:
        self._started += 1
        instance = Instance(
            f"{revision.name}-{self._started}",
            self._own_ports[service.name] if self.direct else free_port(),
            revision.template,
            changed=self.changed,
            drained=partial(self._drained, revision),
        )
        revision.instances.append(instance)
        life = asyncio.create_task(self._live(instance, service, revision))
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)

    async def _live(self, instance: Instance, service: KnativeService, revision: Revision) -> None:
        await instance.run(partial(self._launch, instance, service, revision), self.processes)
        if not instance.stopping:
            with contextlib.suppress(OSError):  # a full disk or a closed terminal must not keep the replacement away
                print(f"{instance.name} ended: {instance.exit_reason}", file=sys.stderr, flush=True)
        self.reports.forget(instance.name)
        revision.ended(instance, time.monotonic())
        asyncio.get_running_loop().call_at(revision.retry_at, self.changed)
        self.changed()

    def _launch(self, instance: Instance, service: KnativeService, revision: Revision) -> Launch:
        command, template = self.commands.find(revision.template.image), revision.template
        scratch = self.state.scratch / instance.name
        hosts = {
            service.host + suffix: self._own_ports[service.name]
            for service in self.services.values()
            for suffix in ("", ".svc", ".svc.cluster.local")
        }
        places = self.configuration.materialise(template, scratch)
        local = partial(localised, addresses=hosts, places=places)
        variables = self.configuration.variables(template)
        reserved = {
            "PORT": str(instance.port),
            "K_SERVICE": service.name,
            "K_REVISION": revision.name,
            "K_CONFIGURATION": service.name,
            "LOCALKN_POD": instance.name,
            "LOCALKN_STATS": str(self.state.socket("stats")),
        }
        if variables.get("METRICS_PORT", "0") != "0":  # a pod has its own ports, instances share the machine's ports
            instance.metrics_port = free_port()
            reserved["METRICS_PORT"] = str(instance.metrics_port)
        limits = {"CPU_LIMIT": template.cpu_limit} if template.cpu_limit is not None else {}
        given = {name: local(value) for name, value in variables.items()}
        return Launch(
            argv=[*command.argv, *(local(expand(word, variables)) for word in template.args)],
            env={**inherited(), **command.env, **limits, **given, **reserved},
            directory=command.directory,
            log=self.state.logs / f"{instance.name}.log",
            scratch=scratch,
        )
