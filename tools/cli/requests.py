"""The verbs that send requests and events."""

import json
from contextlib import suppress
from typing import Annotated, Literal

import typer

from tools.cli.app import verb
from tools.cli.options import STATE_DIR, Json, RunningPort, StateDir, Url, url

_GROUP = "Ask it"


@verb(
    _GROUP,
    "tools.recommend:recommend",
    "user_42",
    "user_42 --top-k 10 --port 9000",
    "user_42 --context device=phone --context hour=14",
)
def recommend(
    user: Annotated[str, typer.Argument(metavar="USER", help="Id of a user; an unknown user gets popular items.")],
    *,
    top_k: Annotated[int, typer.Option(metavar="K", help="Number of items.")] = 5,
    context: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            show_default="none",
            help="A declared value of the context, may be repeated. A number is sent as a number, unless it is quoted: "
            "'page=\"7\"'.",
        ),
    ] = None,
    port: RunningPort = None,
    url: Url = None,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Request recommendations, and show titles beside the ids."""
    if url and port:
        raise typer.BadParameter("--port and --url name two pipelines; give one of them")
    for pair in context or ():
        if not pair.partition("=")[0] or "=" not in pair:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE, such as device=phone", param_hint="--context")


@verb(
    _GROUP,
    "tools.send_event:send_event",
    "--user user_42 --kind purchase --item item_800",
    """--type com.example.stock --data '{"left": 3}'""",
)
def send_event(
    *,
    user: Annotated[str, typer.Option(metavar="USER", help="User that the event is about.")] = "user_42",
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="Kind of interaction: one that is declared, or session_end.")
    ] = "view",
    item: Annotated[str, typer.Option(metavar="ITEM", help="Item of the interaction.")] = "item_1",
    exposure: Annotated[
        str | None,
        typer.Option(metavar="ID", show_default="none", help="Exposure id of the answer that led to the interaction."),
    ] = None,
    type_: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="Type of the event.")
    ] = "dev.recsys.interaction.v1",
    source: Annotated[str, typer.Option(metavar="URI", help="Source of the event.")] = "/run.sh/send-event",
    id_: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="ID",
            show_default="a new id",
            help="An event with the same source and id is the same event.",
        ),
    ] = None,
    subject: Annotated[
        str | None, typer.Option(metavar="TEXT", show_default="the user", help="Subject of the event.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="JSON", help="Content, instead of one made from --user, --kind and --item.")
    ] = None,
    broker: Annotated[str, typer.Option(metavar="[NAMESPACE/]NAME", help="Broker of the local pipeline.")] = "default",
    url: Annotated[
        str | None, typer.Option(parser=url, metavar="URL", help="A broker elsewhere, or a function.")
    ] = None,
    as_json: Json = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Send an event to the broker."""
    if data is not None:
        with suppress(ValueError):
            json.loads(data)
            return
        raise typer.BadParameter("--data must be JSON")


@verb(_GROUP, "tools.local:events", "", "redrive --all", "redrive --trigger interactions")
def events(
    action: Annotated[
        Literal["redrive"] | None, typer.Argument(help="Deliver dead letters again, instead of showing them.")
    ] = None,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of the events to redrive.")] = None,
    *,
    trigger: Annotated[
        str | None, typer.Option(metavar="[NAMESPACE/]NAME", help="Redrive the dead letters of one Trigger.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Redrive the dead letters of one source; ids are unique within it."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Redrive all dead letters.")] = False,
    as_json: Json = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Show the broker's queues and dead letters, or redeliver dead letters."""
    if action is None and (trigger or source or all_):
        raise typer.BadParameter("--trigger, --source and --all go with redrive")
