"""The verbs that build, verify and roll out."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from tools.cli.app import verb
from tools.cli.options import (
    STATE_DIR,
    CaFile,
    Gateway,
    Json,
    Kn,
    Kubectl,
    Namespace,
    StateDir,
    To,
    TokenFile,
    UserIds,
    above_zero,
    counts,
    duration,
    share,
    url,
)

_GROUP = "Release"

Change = Annotated[
    list[str] | None,
    typer.Option(metavar="…", rich_help_panel="Candidate", help="Flag of `kn service update`; may be repeated."),
]
Check = StrEnum("Check", ["ready", "answer", "interaction", "reply", "scale", "update", "end"])


@verb(
    _GROUP,
    "tools.images.verb:images",
    "--to kind",
    "--prefix REGISTRY/recsys --tag v1 --to registry",
    "rank-items -- --platform linux/arm64",
)
def images(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]... [-- FLAGS]", help="Images, all of them without a name; flags for the builder."
        ),
    ] = None,
    *,
    tag: Annotated[str, typer.Option(metavar="TAG", help="Tag of the images.")] = "dev",
    prefix: Annotated[
        str, typer.Option(metavar="PREFIX", help="Prefix of the names, such as a registry.")
    ] = "dev.local",
    base: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGE",
            help="Image whose Python, 3.11 or newer, the images take; `debootstrap` makes one of Debian's packages.",
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also build rank-items with this model in it.")
    ] = None,
    builder: Annotated[
        Literal["docker", "podman", "buildah"] | None,
        typer.Option(show_default="the first that is installed", help="Program that builds."),
    ] = None,
    to: Annotated[
        Literal["registry", "containerd", "k3d", "kind", "minikube"] | None,
        typer.Option(help="Push the images to the registry in PREFIX, or load them into the nodes."),
    ] = None,
) -> None:
    """Build the container images, and bring them to a cluster."""


@verb(_GROUP, "tools.images.prove:prove_images", "", "--suite trixie")
def prove_images(
    *,
    base: Annotated[
        str | None, typer.Option(metavar="IMAGE", show_default="made with debootstrap", help="Image to build on.")
    ] = None,
    suite: Annotated[str, typer.Option(metavar="SUITE", help="Suite of Debian for debootstrap.")] = "stable",
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Build the images, run them read-only and without root, and check their content."""


@verb(
    _GROUP,
    "tools.rollout.verb:roll_out",
    "rank-items --image IMAGE",
    "rank-items --env MAX_BATCH_SIZE=64 --steps 5,25,100 --max-error-rate 0.1%",
    "rank-items --namespace recsys --gateway http://127.0.0.1:8081 --image IMAGE",
)
def rollout(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="The Service to update.")],
    *,
    image: Change = None,
    env: Change = None,
    scale: Change = None,
    scale_init: Change = None,
    scale_target: Change = None,
    concurrency_limit: Change = None,
    annotation_revision: Change = None,
    request: Change = None,
    limit: Change = None,
    wait_timeout: Change = None,
    max_error_rate: Annotated[
        float, typer.Option(parser=share, metavar="0.1%", help="Share of failed requests.")
    ] = 0.001,
    max_p99_ms: Annotated[
        float | None, typer.Option(parser=above_zero, metavar="MS", help="99th percentile of latency.")
    ] = None,
    max_slowdown: Annotated[
        float, typer.Option(parser=above_zero, metavar="X", help="Median latency, as a multiple of the current one.")
    ] = 1.5,
    min_overlap: Annotated[
        float | None, typer.Option(metavar="0..1", min=0, max=1, help="Mean overlap with the current top k.")
    ] = None,
    min_correlation: Annotated[
        float | None, typer.Option(metavar="-1..1", min=-1, max=1, help="Mean rank correlation with the current list.")
    ] = None,
    steps: Annotated[
        str, typer.Option(parser=counts, metavar="N,N,…", help="Percentages of the traffic, one for each step.")
    ] = "5,25,100",
    step_duration: Annotated[
        float, typer.Option(parser=above_zero, metavar="SECONDS", help="Least duration of a step.")
    ] = 10.0,
    requests: Annotated[int, typer.Option(metavar="N", min=1, help="Requests to each revision at each step.")] = 200,
    callers: Annotated[int, typer.Option(metavar="N", min=1, help="Requests in flight.")] = 2,
    body_file: Annotated[
        Path | None, typer.Option(metavar="FILE", exists=True, help="Requests to send, a line of JSON each.")
    ] = None,
    users: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, show_default="the demo's", help="Users to ask for, one a line."),
    ] = None,
    top_k: Annotated[int, typer.Option(metavar="K", min=1, help="Number of items that are compared.")] = 10,
    namespace: Namespace = None,
    kn: Kn = "kn",
    gateway: Gateway = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    state_dir: StateDir = STATE_DIR,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", show_default="rollouts in --state-dir", help="Folder of reports.")
    ] = None,
) -> None:
    """
    Update a Service in steps, and roll back if the new revision breaks a limit.

    The new revision first gets copies of requests only, then traffic in steps. Each step compares it with the current
    revision.
    """


@verb(_GROUP, "tools.shadow:run", "start --to candidate --share 5%", "show", "stop")
def shadow(
    action: Annotated[Literal["start", "show", "stop"], typer.Argument(help="What to do.")],
    *,
    to: Annotated[str | None, typer.Option(metavar="TAG", help="Tag of the revision of rank-items to compare.")] = None,
    share: Annotated[float, typer.Option(parser=share, metavar="5%", help="Share of the calls to copy.")] = 0.05,
    namespace: Namespace = None,
    kn: Kn = "kn",
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Let a revision of rank-items rank copies of real calls, without serving its lists."""
    if (action == "start") != bool(to):
        raise typer.BadParameter("--to goes with start, and start needs it")
    if action == "show" and namespace:
        raise typer.BadParameter("show reads the local pipeline; on a cluster, look at recsys_shadow_* in Prometheus")


@verb(
    _GROUP,
    "tools.cluster.verb:run",
    "doctor --overlay knative/overlays/prod",
    "doctor --overlay knative/overlays/dev --kubectl 'kubectl --context test'",
)
def cluster(
    action: Annotated[Literal["doctor"], typer.Argument(help="What to do.")],
    *,
    overlay: Annotated[
        Path,
        typer.Option(
            metavar="PATH", exists=True, help="Overlay that is deployed, or will be: a folder, or a file of objects."
        ),
    ],
    kubectl: Kubectl = "kubectl",
    as_json: Json = False,
) -> None:
    """
    Check a cluster before and after an overlay is applied, and say how to fix each fault.

    The checks only read. They cover versions, gateway, feature flags, metrics, certificates, Secrets, model, store,
    Services and events.
    """


@verb(
    _GROUP,
    "tools.dead_letters:run",
    "--namespace recsys --gateway http://127.0.0.1:8081",
    "redrive --all --namespace recsys --gateway http://127.0.0.1:8081 --broker http://127.0.0.1:8082",
)
def dead_letters(
    action: Annotated[
        Literal["redrive"] | None, typer.Argument(help="Send dead letters again, instead of listing them.")
    ] = None,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Dead letters to send again.")] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="Send all dead letters again.")] = False,
    as_json: Json = False,
    namespace: Annotated[str, typer.Option(metavar="NAME", help="Namespace of the pipeline.")] = "default",
    gateway: Annotated[
        str, typer.Option(parser=url, metavar="URL", help="The gateway for private Services, or a port-forward to it.")
    ],
    broker: Annotated[
        str | None, typer.Option(parser=url, metavar="URL", help="The Broker, or a port-forward to it.")
    ] = None,
) -> None:
    """List the undeliverable events that a cluster keeps, or send them again. Locally, use `events`."""
    if action is None and (ids or all_ or broker):
        raise typer.BadParameter("IDs, --all and --broker go with redrive")
    if action and not (broker and bool(ids) != all_):
        raise typer.BadParameter("redrive needs --broker, and either IDs or --all")


@verb(_GROUP, "tools.loop:run", "--every 10m", "--once --fewest 500", "--offer models/7-3f2a9c01d4e5")
def loop(
    *,
    every: Annotated[
        float,
        typer.Option(
            parser=duration,
            metavar="TIME",
            show_default="10m",
            help="Time between two readings of the store, such as 90s, 5m or 1h.",
        ),
    ] = 600.0,
    once: Annotated[bool, typer.Option("--once", help="End after one round.")] = False,
    fewest: Annotated[
        int, typer.Option(metavar="N", min=1, help="Pairs of user and item newer than the model, to train on.")
    ] = 1000,
    margin: Annotated[
        float, typer.Option(metavar="0..1", min=0, max=1, help="Share of NDCG@10 that a new model may lose.")
    ] = 0.05,
    step_duration: Annotated[
        float, typer.Option(parser=above_zero, metavar="SECONDS", help="Least duration of a step of the rollout.")
    ] = 10.0,
    to: To = None,
    offer: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Judge and roll out the model in this folder instead of training; then end."),
    ] = None,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Retrain the running pipeline on new interactions, and roll out each model that is not worse."""


@verb(
    _GROUP,
    "tools.congruence.verb:compare",
    "",
    "env split rollback",
    "--namespace default --service rank-items",
)
def congruence(
    scenarios: Annotated[
        list[str] | None, typer.Argument(metavar="[SCENARIO]...", help="Run only these scenarios.")
    ] = None,
    *,
    service: Annotated[str, typer.Option(metavar="NAME", help="The Service to change.")] = "rank-items",
    namespace: Namespace = None,
    kn: Kn = "kn",
    as_json: Json = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """
    Change a Service in many ways, and report where the platform differs from Knative.

    Each scenario undoes its changes. The Service must be ready and send all traffic to its latest revision.
    """


@verb(
    _GROUP,
    "tools.acceptance.verb:accept",
    "",
    "ready answer",
    "--namespace default --gateway http://127.0.0.1:8081 --broker http://127.0.0.1:8082",
)
def acceptance(
    checks: Annotated[list[Check] | None, typer.Argument(metavar="[CHECK]...", help="Run only these checks.")] = None,
    *,
    callers: Annotated[int, typer.Option(metavar="N", min=1, help="Requests in flight during a load.")] = 40,
    seconds: Annotated[
        float,
        typer.Option(parser=above_zero, metavar="SECONDS", help="Length of a load; three updates have to fit into it."),
    ] = 60.0,
    users: Annotated[
        int, typer.Option(metavar="N", min=1, help="Users to ask for: user_1 to user_N, or N of --user-ids.")
    ] = 1000,
    user_ids: UserIds = None,
    as_json: Json = False,
    namespace: Namespace = None,
    gateway: Gateway = None,
    host: Annotated[str | None, typer.Option(metavar="NAME", help="Name of recommend at the gateway.")] = None,
    broker: Annotated[
        str | None, typer.Option(parser=url, metavar="URL", help="Connect here for the Broker: a port-forward.")
    ] = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    kubectl: Kubectl = "kubectl",
    kn: Kn = "kn",
    state_dir: StateDir = STATE_DIR,
) -> None:
    """
    Test a deployment by using it.

    The checks scale, update and end put load on the deployment and restart instances.
    """
