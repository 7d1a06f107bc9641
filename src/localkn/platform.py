"""
The running platform: carries out what services and revisions decide.

One loop compares what is with what is wanted whenever something changed: an instance, a decision, a Service.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from localkn.commands import Commands
from localkn.environment import Configuration, expand, inherited, localised
from localkn.envoy import EnvoyIngress
from localkn.errors import ManifestError, RefusedError
from localkn.ingress import Cluster, DirectIngress, Endpoint, Ingress, Picture, Route
from localkn.instances import Instance, Launch, State
from localkn.kpa.autoscaler import TICK_S
from localkn.processes import Ports, Processes
from localkn.revisions import Revision
from localkn.services import Service
from localkn.state import StateDirectory
from localkn.stats import Reports
from localkn.templates import Template
from localkn.validation import service_faults


@dataclass(frozen=True, slots=True)
class World:
    """What a platform is given: the manifests' other objects, the commands, the places, the ways to act."""

    configuration: Configuration
    commands: Commands
    state: StateDirectory
    processes: Processes
    reports: Reports
    ports: Ports
    public: str
    public_port: int
    direct: bool = False
    certificate: tuple[Path, Path] | None = None
    notes: Sequence[str] = ()

    @property
    def url(self) -> str:
        """Where the public Service is."""
        return f"http{'s' if self.certificate else ''}://127.0.0.1:{self.public_port}"


@dataclass(eq=False)
class Platform:
    """All Services of one state directory."""

    world: World
    services: dict[str, Service] = field(default_factory=dict)
    _routes: dict[str, int] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = field(default_factory=list)
    _started: int = 0

    def __post_init__(self) -> None:
        world = self.world
        self.ingress: Ingress = (
            DirectIngress()
            if world.direct
            else EnvoyIngress(world.state, world.processes, world.public_port, world.certificate, self.changed)
        )

    def add(self, body: Mapping[str, Any], *, namespace: str) -> None:
        """
        Take in a Service before the platform runs.

        Raises:
            ManifestError: It cannot run here.
        """
        name = body["metadata"]["name"]
        public_itself = self.world.direct and name == self.world.public
        self._routes[name] = self.world.public_port if public_itself else self.world.ports.take()
        self.services[name] = Service(name, namespace, fixed_scale=1 if self.world.direct else None)
        self.apply(body)

    def apply(self, body: Mapping[str, Any]) -> tuple[Service, bool]:
        """
        Take over a Service's new description; `until` tells when it has taken effect.

        Returns:
            The Service, and whether there is a new revision of it.

        Raises:
            RefusedError: There is no such Service, or Knative would refuse the description.
            ManifestError: It needs an object or a command that is not there.
        """
        service = self.services.get((body.get("metadata") or {}).get("name", ""))
        if service is None:
            raise RefusedError("there is no such Service; Services are taken from the manifests by `up`")
        if faults := service_faults(body):
            raise RefusedError("\n".join(f"{path}: {message}" for path, message in faults))
        if self.world.direct and service.revisions:
            raise RefusedError("with --direct nothing can take over from a running instance; start without it")
        template = Template.from_body(body["spec"]["template"])
        self.world.commands.find(template.image)
        if missing := list(self.world.configuration.missing(template)):
            raise ManifestError([f"Service {service.name}: {fault}" for fault in missing])
        revision = service.apply(body, now=time.monotonic())
        self._changed.set()
        return service, revision is not None

    async def run(self) -> None:
        """Work until cancelled; then every instance is ended."""
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._keep_time())
                loops.create_task(self._reconcile_on_change())
        finally:
            await self._end()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when *condition* holds; it is looked at after every change."""
        if not condition():
            held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((condition, held))
            await held

    def changed(self) -> None:
        """Have the loop look at everything again."""
        self._changed.set()

    def url_of(self, service: Service, *, tag: str = "") -> str:
        """Where a Service is on this machine, or what one of its tags leads to."""
        if tag:
            return self.world.url.replace("127.0.0.1", f"{tag}-{service.host}.localhost")
        own = f"http://127.0.0.1:{self._routes[service.name]}"
        return self.world.url if service.name == self.world.public else own

    def picture(self) -> Picture:
        """What the ingress should know now."""
        return Picture(
            clusters=[self._cluster(revision) for _, revision in self._revisions() if self._is_served(revision)],
            routes=[
                Route(
                    host=service.host,
                    port=self._routes[service.name],
                    targets=service.routed,
                    # Traffic shares one limit: a split cannot cut requests to one revision short of another's.
                    timeout_s=max(
                        (service.revisions[t.revision].template.timeout_s for t in service.routed), default=1
                    ),
                    idle_timeout_s=max(
                        (service.revisions[t.revision].template.idle_timeout_s for t in service.routed), default=0
                    ),
                    public=service.name == self.world.public,
                )
                for service in self.services.values()
            ],
        )

    def _revisions(self) -> Iterator[tuple[Service, Revision]]:
        for service in self.services.values():
            for revision in service.revisions.values():
                yield service, revision

    def _is_served(self, revision: Revision) -> bool:
        routed = any(t.revision == revision.name for service in self.services.values() for t in service.routed)
        return routed or bool(revision.instances)

    @staticmethod
    def _cluster(revision: Revision) -> Cluster:
        limit, most = revision.template.container_concurrency, revision.template.settings.max_scale or 1000
        draining = [i for i in revision.instances if i.state is State.DRAINING]
        return Cluster(
            name=revision.name,
            endpoints=[Endpoint(i.port) for i in revision.ready] + [Endpoint(i.port, draining=True) for i in draining],
            container_concurrency=limit,
            queue_limit=10 * limit * most,
            http2=revision.template.http2,
        )

    async def _keep_time(self) -> None:
        """Record what was measured every second, decide every other."""
        second = int(time.monotonic())
        while True:
            second += 1
            await asyncio.sleep(second - time.monotonic())
            for _, revision in self._revisions():
                self._measure(revision)
                if second % TICK_S == 0:
                    revision.decide(time.monotonic())
            self._changed.set()

    def _measure(self, revision: Revision) -> None:
        if not revision.ready:
            return
        # What waits for an instance with a hard limit waits in the ingress, so only that knows the whole load.
        limited = revision.template.container_concurrency > 0
        loads = [
            (None if limited else self.world.reports.newest(instance.name))
            or self.ingress.load(revision.name, instance.port)
            for instance in revision.ready
        ]
        revision.measure(
            time.monotonic(),
            concurrency=sum(load.concurrency for load in loads),
            requests=sum(load.requests for load in loads),
        )

    async def _reconcile_on_change(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._reconcile(time.monotonic())

    def _reconcile(self, now: float) -> None:
        for service in self.services.values():
            service.step(now, serving=self._is_serving)
            for revision in service.revisions.values():
                plan = revision.plan(now)
                for _ in range(plan.start):
                    self._start(service, revision)
                for instance in plan.stop:
                    instance.stop()
        self.ingress.publish(self.picture())
        for waiting in [w for w in self._waiting if w[0]() and not w[1].done()]:
            waiting[1].set_result(None)
        self._waiting = [w for w in self._waiting if not w[1].done()]

    def _is_serving(self, revision: str) -> bool:
        return any(seen.healthy for seen in self.ingress.seen(revision).values())

    def _start(self, service: Service, revision: Revision) -> None:
        self._started += 1
        port = self._routes[service.name] if self.world.direct else self.world.ports.take()
        instance = Instance(
            name=f"{revision.name}-{self._started}",
            port=port,
            template=revision.template,
            changed=self.changed,
            drained=lambda ending: self.ingress.drained(revision.name, ending.port),
        )
        revision.instances.append(instance)
        task = asyncio.create_task(self._live(instance, service, revision))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, instance: Instance, service: Service, revision: Revision) -> None:
        await instance.run(self._launch(instance, service, revision), self.world.processes)
        self.world.reports.forget(instance.name)
        revision.ended(instance, time.monotonic())
        asyncio.get_running_loop().call_at(revision.retry_at, self.changed)
        self.changed()

    def _launch(self, instance: Instance, service: Service, revision: Revision) -> Launch:
        command, template = self.world.commands.find(revision.template.image), revision.template
        scratch = self.world.state.scratch / instance.name
        places = self.world.configuration.materialise(template, scratch)
        variables = self.world.configuration.variables(template)
        local = partial(localised, addresses=self._addresses(), places=places)
        env = {name: local(value) for name, value in variables.items()}
        if template.cpu_limit is not None:
            env.setdefault("CPU_LIMIT", template.cpu_limit)
        return Launch(
            argv=[*command.argv, *(local(expand(word, variables)) for word in template.args)],
            env={
                **inherited(),
                **command.env,
                **env,
                "PORT": str(instance.port),
                "K_SERVICE": service.name,
                "K_REVISION": revision.name,
                "K_CONFIGURATION": service.name,
                "LOCALKN_POD": instance.name,
                "LOCALKN_STATS": str(self.world.state.socket("stats")),
            },
            directory=command.directory,
            log=self.log_of(instance.name),
            scratch=scratch,
        )

    def log_of(self, instance: str) -> Path:
        """Where an instance's output goes."""
        return self.world.state.logs / f"{instance}.log"

    def _addresses(self) -> dict[str, int]:
        hosts = ("", ".svc", ".svc.cluster.local")
        return {s.host + suffix: self._routes[s.name] for s in self.services.values() for suffix in hosts}

    async def _end(self) -> None:
        for _, revision in self._revisions():
            for instance in revision.instances:
                if instance.process is not None:
                    self._tasks.add(asyncio.create_task(instance.process.end(grace_s=10.0)))
        await self.ingress.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
