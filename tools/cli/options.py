"""The options that several verbs share, and the values that options take."""

import math
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import typer

STATE_DIR = Path(".recsys")

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def url(text: str) -> str:
    """Return *text* if it is an absolute URL."""
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise typer.BadParameter(f"{text!r} is not a URL such as http://127.0.0.1:8080")
    return text


def store_url(text: str) -> str:
    """Return *text* if it is the URL of a feature store."""
    from recstore.port import StoreError
    from recstore.urls import split_url

    try:
        split_url(text)
    except StoreError as error:
        raise typer.BadParameter(str(error)) from error
    return text


def mapping(text: str) -> str:
    """Return *text* if it names columns by field."""
    from offline.reading.columns import parse_mapping

    try:
        parse_mapping(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return text


def lists_file(text: str) -> Path:
    """Return the path of a file of lists, whose suffix names its format."""
    path = Path(text)
    if path.suffix not in {".csv", ".jsonl", ".parquet"}:
        raise typer.BadParameter(f"{text!r} must end in .csv, .jsonl or .parquet")
    return path


def duration(text: str | float) -> float:
    """Return the seconds of `90`, `90s`, `5m`, `1h` or a default."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(text))
    if match is None or not float(match[1]):
        raise typer.BadParameter(f"{text!r} is not a duration such as 90, 90s, 5m or 1h")
    return float(match[1]) * _UNITS_S[match[2]]


def port(text: str) -> int:
    """Return the number of a port."""
    number = _number(text)
    if not 1 <= number <= 65535 or number != int(number):
        raise typer.BadParameter(f"must be 1 to 65535, not {text!r}")
    return int(number)


def share(text: str | float) -> float:
    """Return `0.1%`, `0.001` or a default as a number from 0 to 1."""
    number = str(text)
    value = _number(number[:-1]) / 100 if number.endswith("%") else _number(number)
    if not 0 <= value <= 1:
        raise typer.BadParameter(f"{text!r} is not a share such as 0.1% or 0.001")
    return value


def above_zero(text: str) -> float:
    """Return *text* as a finite number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"must be a number above 0, not {text!r}")
    return value


def not_negative(text: str) -> float:
    """Return *text* as a finite number of at least 0."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise typer.BadParameter(f"must be a number of at least 0, not {text!r}")
    return value


def counts(text: str) -> str:
    """Check numbers above 0 with commas between them, such as `1,2,4`, and return them without percent signs."""
    words = [word.strip().removesuffix("%") for word in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,9}", word) and int(word) for word in words):
        raise typer.BadParameter(f"must be numbers above 0 such as 1,2,4, not {text!r}")
    return ",".join(words)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


To = Annotated[
    str | None,
    typer.Option(metavar="s3://BUCKET/PREFIX", show_default="none", help="Object store to publish the model to."),
]
StateDir = Annotated[
    Path, typer.Option("--state-dir", metavar="DIR", help="Directory of the stores, the models and the local platform.")
]
Port = Annotated[int, typer.Option(parser=port, metavar="N", help="Port on 127.0.0.1.")]
RunningPort = Annotated[
    int | None,
    typer.Option(parser=port, metavar="N", show_default="the running pipeline's, else 8080", help="Port on 127.0.0.1."),
]
Url = Annotated[str | None, typer.Option(parser=url, metavar="URL", help="A pipeline elsewhere.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Store = Annotated[
    str | None, typer.Option(parser=store_url, metavar="URL", show_default="the current store", help="Store to use.")
]
Interactions = Annotated[
    Path | None,
    typer.Option(
        "--interactions",
        metavar="FILE",
        show_default="the demo data",
        help="Interactions: user, item, weight and time.",
    ),
]
Items = Annotated[Path | None, typer.Option("--items", metavar="FILE", help="Titles and categories.")]
Users = Annotated[Path | None, typer.Option("--users", metavar="FILE", help="Ages and attributes of users.")]
Format = Annotated[Literal["csv", "lastfm", "movielens"], typer.Option("--format", help="Format of these files.")]
MinWeight = Annotated[
    float, typer.Option("--min-weight", metavar="W", help="Leave out rows of less weight, such as ratings below 4.")
]
Map = Annotated[
    str | None,
    typer.Option(
        "--map",
        parser=mapping,
        metavar="FIELD=COLUMN,…",
        show_default="the usual names",
        help="Columns of a csv file, such as user=uid,item=sku,time=ts.",
    ),
]
SkipFaults = Annotated[
    int, typer.Option("--skip-faults", metavar="N", min=0, help="Leave out up to N faulty lines of the files.")
]
DeclarationFile = Annotated[
    Path | None,
    typer.Option(
        "--declaration",
        metavar="FILE",
        envvar="RECSYS_DECLARATION",
        show_envvar=False,
        exists=True,
        dir_okay=False,
        show_default="RECSYS_DECLARATION, else the demo's",
        help="Kinds of events, attributes, rules and training; see ./run.sh declaration.",
    ),
]
Holdout = Annotated[
    Literal["random", "temporal"] | None, typer.Option("--holdout", help="How to choose the fifth that is held out.")
]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of random choices.")]
Namespace = Annotated[
    str | None,
    typer.Option(metavar="NAME", show_default="the platform of --state-dir", help="Namespace on the cluster."),
]
Gateway = Annotated[
    str | None,
    typer.Option(parser=url, metavar="URL", help="Connect here instead: the gateway, or a port-forward of it."),
]
TokenFile = Annotated[
    Path | None, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Bearer token to send.")
]
UserIds = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Known users, an id a line, in place of those of the demo data.",
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Certificate authority to trust for HTTPS."),
]
Kn = Annotated[str, typer.Option(metavar="COMMAND", help="The kn command.")]
Kubectl = Annotated[str, typer.Option(metavar="COMMAND", help="The kubectl command.")]


def check_data(interactions: Path | None, *others: object) -> None:
    """Refuse options that describe a file without the file."""
    if interactions is None and any(others):
        raise typer.BadParameter("--items, --users, --min-weight, --map and --skip-faults go with --interactions")


def check_map(map_: str | None, format_: str) -> None:
    """Refuse names of columns for a format whose columns are known."""
    if map_ and format_ != "csv":
        raise typer.BadParameter("--map goes with --format csv; the columns of the other formats are known")
