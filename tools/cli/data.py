"""The verbs that bring data in."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tools.cli.app import verb
from tools.cli.options import (
    STATE_DIR,
    DeclarationFile,
    Format,
    Holdout,
    Interactions,
    Items,
    Json,
    Map,
    MinWeight,
    Seed,
    SkipFaults,
    StateDir,
    Store,
    To,
    Users,
    check_data,
    check_map,
    lists_file,
    store_url,
)

_GROUP = "Your data"


@verb(
    _GROUP,
    "tools.model:train",
    "--interactions ratings.csv --items titles.csv",
    "--interactions u.data --format movielens --min-weight 4",
    "--from-store",
    "--from-store --refresh --items new-items.csv",
)
def train(
    store: Annotated[
        str | None, typer.Argument(metavar="[URL]", show_default="the current store", help="Store of --from-store.")
    ] = None,
    *,
    interactions: Interactions = None,
    items: Items = None,
    users: Users = None,
    format_: Format = "csv",
    min_weight: MinWeight = 0.0,
    map_: Map = None,
    skip_faults: SkipFaults = 0,
    declaration: DeclarationFile = None,
    holdout: Holdout = None,
    seed: Seed = 0,
    search: Annotated[bool, typer.Option("--search", help="Search hyper-parameters first.")] = False,
    from_store: Annotated[
        bool, typer.Option("--from-store", help="Train on a feature store, events included.")
    ] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="With --from-store: keep the current model's settings, which is faster.")
    ] = False,
    if_missing: Annotated[bool, typer.Option("--if-missing", help="Do nothing if a model exists already.")] = False,
    to: To = None,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Train a model on the demo data, a file or a feature store; the next `up` serves it."""
    check_data(
        interactions, None if from_store else items, users, min_weight, *(() if from_store else (map_, skip_faults))
    )
    check_map(map_, format_)
    if store and not from_store:
        raise typer.BadParameter(f"{store!r} is a word too many; a store goes with --from-store")
    if from_store and (interactions or holdout or if_missing):
        raise typer.BadParameter("--from-store trains on a store: no --interactions, --holdout or --if-missing")
    if refresh and (not from_store or search):
        raise typer.BadParameter("--refresh goes with --from-store, and without --search")


@verb(_GROUP, "tools.declaration:run", "check recsys.toml", "show", "schema")
def declaration(
    action: Annotated[
        Literal["check", "show", "schema"],
        typer.Argument(help="Check a file, print the demo's declaration, or print the JSON schema."),
    ],
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", show_default="none", help="File to check.")] = None,
) -> None:
    """Check a declaration and print its faults with their lines, or print the demo's to begin with."""
    if (action == "check") != (file is not None):
        raise typer.BadParameter("check takes a FILE, and show and schema take none")


@verb(_GROUP, "tools.own_model:model", "check", "check recsys.toml", "attach recsys.toml")
def model(
    action: Annotated[
        Literal["check", "attach"],
        typer.Argument(help="Check a model, or attach the ranker and the encoder of a declaration to the current one."),
    ],
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            show_default="the current model",
            help="A declaration with [ranker] or [encoder]; for check, the folder of a model, too.",
        ),
    ] = None,
    *,
    provider: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="For check: the device that runs ONNX files.")
    ] = "cpu",
    as_json: Json = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Bring a ranker or a user encoder of your own, and check that it answers as the pipeline needs it."""
    if action == "attach" and (path is None or path.is_dir()):
        raise typer.BadParameter("attach takes the declaration that names the models")


@verb(_GROUP, "tools.store:copy", "copy --from sqlite:///.recsys/stores/1-demo.db --to redis://127.0.0.1:6379/0")
def store(
    action: Annotated[Literal["copy"], typer.Argument(help="What to do.")],
    *,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            parser=store_url,
            metavar="URL",
            help="sqlite:///FILE or redis://HOST:PORT/DB; the store must exist and hold users.",
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--to", parser=store_url, metavar="URL", help="A store of the same kinds; its content is replaced."
        ),
    ],
    user_ttl_s: Annotated[
        int, typer.Option(metavar="SECONDS", min=0, help="For Redis: the USER_TTL_S of its extract_features.")
    ] = 0,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Empty the target if the source holds no users.")
    ] = False,
) -> None:
    """Copy one feature store into another."""
    from recstore.urls import same_place

    if same_place(source, target):
        raise typer.BadParameter("--from and --to name the same store")


@verb(_GROUP, "tools.items:items", "import new-items.csv", "import changes.jsonl --store redis://127.0.0.1:6379/0")
def items(
    action: Annotated[Literal["import"], typer.Argument(help="What to do.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Items as for train, or JSON lines (.jsonl) of item.upserted.v1.")
    ],
    *,
    format_: Format = "csv",
    map_: Map = None,
    store: Store = None,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Add and change items of the running pipeline, which shows them within seconds."""
    check_map(map_, format_)


@verb(_GROUP, "tools.export:run", "--top-k 10 --to lists.csv", "--top-k 100 --to lists.parquet")
def export(
    *,
    to: Annotated[
        Path,
        typer.Option(parser=lists_file, metavar="FILE", help="File to write: .csv, .jsonl or .parquet."),
    ],
    top_k: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Number of items for each user.")] = 10,
    store: Store = None,
    declaration: DeclarationFile = None,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Write the recommendations for all users into a file. The same command continues an interrupted export."""


@verb(_GROUP, "tools.users:users", "show user_42", "import attributes.csv", "erase user_42", "readmit user_42")
def users(
    action: Annotated[Literal["show", "import", "erase", "readmit"], typer.Argument(help="What to do.")],
    user: Annotated[
        str,
        typer.Argument(
            metavar="USER|FILE",
            help="Id of the user. For import: a users file as for train, or JSON lines (.jsonl) of user.updated.v1.",
        ),
    ],
    *,
    store: Annotated[
        str | None,
        typer.Option(
            parser=store_url,
            metavar="URL",
            show_default="the current store; erase and readmit: all stores of the state directory",
            help="Store to use.",
        ),
    ] = None,
    map_: Map = None,
    as_json: Json = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Show, erase or readmit a user of the feature store, or import attributes of users."""
