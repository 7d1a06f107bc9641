"""The verbs that run the pipeline on this machine."""

from typing import Annotated

import typer

from tools.cli.app import WORDS, verb
from tools.cli.options import STATE_DIR, DeclarationFile, Json, Port, StateDir
from tools.cli.options import port as port_number

_GROUP = "Run it"


@verb(_GROUP, "tools.up:up", "", "--detach --port 9000", "--simulate-latency --tls")
def up(
    *,
    port: Port = 8080,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as the pipeline is ready.")] = False,
    direct: Annotated[bool, typer.Option("--direct", help="One instance each, no ingress, no scaling.")] = False,
    fused: Annotated[bool, typer.Option("--fused", help="One Service that holds all three functions.")] = False,
    exposures: Annotated[
        bool, typer.Option("--exposures", help="Keep what was shown, and what users did with it.")
    ] = False,
    zero: Annotated[bool, typer.Option("--zero", help="Scale all three functions to zero when idle.")] = False,
    tls: Annotated[
        bool, typer.Option("--tls", help="HTTPS, with a certificate authority made for this machine.")
    ] = False,
    simulate_latency: Annotated[
        bool, typer.Option("--simulate-latency", help="Take 10 ms for features and 50 ms for a batch of the model.")
    ] = False,
    dashboard_port: Annotated[
        int | None,
        typer.Option(
            parser=port_number, metavar="N", show_default="--port + 1, or a free one", help="Port of the live page."
        ),
    ] = None,
    env_override: Annotated[
        list[str] | None, typer.Option(metavar="[SERVICE:]NAME=VALUE", help="Change a setting; may be repeated.")
    ] = None,
    declaration: DeclarationFile = None,
    host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A further host that the port answers to; may be repeated.")
    ] = None,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Serve the pipeline, after training on the demo data if no model exists yet."""
    if exposures and fused:
        raise typer.BadParameter("--exposures goes without --fused: the single Service reports no answers")
    if zero and (fused or direct or exposures):
        raise typer.BadParameter("--zero goes without --fused, --direct and --exposures, which have other manifests")


@verb(_GROUP, "tools.local:down", "")
def down(*, state_dir: StateDir = STATE_DIR) -> None:
    """Stop the pipeline and all its processes."""


@verb(_GROUP, "tools.local:status", "", "--watch", "--once", "--json")
def status(
    *,
    watch: Annotated[
        bool | None,
        typer.Option(
            "--watch/--once", show_default="--watch on a terminal", help="Update every second; --once prints once."
        ),
    ] = None,
    as_json: Json = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Show Services, revisions and instances."""


@verb(_GROUP, "tools.local:logs", "", "rank-items", "rank-items -f")
def logs(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="A Service, a revision or an instance.")] = "",
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines until Ctrl-C.")] = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Show the logs of the instances, merged by time."""


@verb(
    _GROUP,
    "tools.local:kn",
    "service list",
    "service update rank-items --env MAX_BATCH_SIZE=64",
    "service update rank-items --traffic rank-items-00001=100",
    "revision describe rank-items-00001 -o json",
    context_settings=WORDS,
)
def kn(
    words: Annotated[
        list[str], typer.Argument(metavar="service|revision VERB [NAME] [FLAGS]", help="The words and flags of kn.")
    ],
    *,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Run a command of kn on the local pipeline."""


@verb(_GROUP, "tools.demo:demo", "--keep")
def demo(
    *,
    port: Port = 8080,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the pipeline and its page running.")] = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Start with simulated latency, apply load, and show scaling out and in."""


@verb(_GROUP, "tools.grafana:grafana", "")
def grafana(*, port: Port = 3000, state_dir: StateDir = STATE_DIR) -> None:
    """Show the running pipeline in Prometheus and Grafana, if both are installed, until Ctrl-C."""


@verb(_GROUP, "tools.doctor:diagnose", "")
def doctor(*, port: Port = 8080, state_dir: StateDir = STATE_DIR) -> None:
    """Check versions, ports, model, store and settings, and say how to fix each fault."""
