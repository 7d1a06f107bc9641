"""The verbs that measure the model and the pipeline."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tools.cli.app import verb
from tools.cli.options import (
    STATE_DIR,
    CaFile,
    DeclarationFile,
    Format,
    Holdout,
    Interactions,
    Items,
    Json,
    Kn,
    Map,
    MinWeight,
    Namespace,
    RunningPort,
    Seed,
    SkipFaults,
    StateDir,
    Store,
    Url,
    UserIds,
    Users,
    above_zero,
    check_data,
    check_map,
    counts,
    duration,
    not_negative,
    share,
    url,
)

_GROUP = "Measure"
_PICTURES = (".png", ".svg", ".pdf")

Bench = Literal[
    "batching",
    "coalescing",
    "coldstart",
    "events",
    "experiments",
    "exposures",
    "page",
    "pipeline",
    "ranking",
    "scale",
    "telemetry",
    "topk",
    "train",
    "zero",
]
Population = Annotated[
    int, typer.Option(metavar="N", min=1, help="Returning users: user_1 to user_N, or N of --user-ids.")
]


@verb(
    _GROUP,
    "tools.model:evaluate",
    "",
    "--interactions ratings.csv --holdout random --splits 5 --ablate",
    "--holdout temporal --via http://127.0.0.1:8080",
    "--logged current --candidate .recsys/models/candidate",
)
def evaluate(
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
    splits: Annotated[int, typer.Option(metavar="N", min=1, help="Number of random hold-outs.")] = 1,
    search: Annotated[
        bool, typer.Option("--search", help="Search hyper-parameters in the training part first.")
    ] = False,
    ablate: Annotated[bool, typer.Option("--ablate", help="Also train the model without each of its parts.")] = False,
    new_items: Annotated[
        bool, typer.Option("--new-items", help="Hide a tenth of the items in training, and measure these alone.")
    ] = False,
    brief: Annotated[
        bool, typer.Option("--brief", help="Leave out the split at a date and the users that training never saw.")
    ] = False,
    most_users: Annotated[
        int, typer.Option(metavar="N", min=1, help="Users to recommend to; of more, a random sample.")
    ] = 25_000,
    via: Annotated[
        str | None,
        typer.Option(parser=url, metavar="URL", help="Also ask a running pipeline, and compare list by list."),
    ] = None,
    logged: Annotated[
        str | None,
        typer.Option(
            metavar="LOG",
            help="Estimate from logged lists how a model would do: `current`, the URL of a store, or a file.",
        ),
    ] = None,
    candidate: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default="the current model", help="With --logged: folder of the model."),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            show_default="all",
            help="With --logged: actions that count, such as click; may be repeated.",
        ),
    ] = None,
    as_json: Json = False,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the report there, as Markdown and JSON.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a png, svg or pdf.")] = None,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """
    Measure the model's quality: hold out a fifth of each user's items, train on the rest, and count what it finds.

    Without --via, --search, --ablate, --splits and --brief, data with times is also split at a date, and users that
    training never saw are measured by the number of their known items.
    """
    check_data(interactions, items, users, min_weight, map_, skip_faults)
    check_map(map_, format_)
    if via and (search or ablate or splits > 1):
        raise typer.BadParameter("--via asks a model that is trained already: no --search, --ablate or --splits")
    if (candidate or kind) and not logged:
        raise typer.BadParameter("--candidate and --kind go with --logged")
    if logged and (
        interactions or items or users or holdout or search or ablate or via or plot or splits > 1 or brief or new_items
    ):
        raise typer.BadParameter("--logged takes --candidate, --kind, --json, --report and --state-dir alone")
    if new_items and (via or search or ablate or splits > 1):
        raise typer.BadParameter("--new-items has its own models: no --via, --search, --ablate or --splits")
    if plot and plot.suffix not in _PICTURES:
        raise typer.BadParameter(f"--plot draws {', '.join(_PICTURES)}")


@verb(_GROUP, "loadtests.verb:load", "", "--shape spike --users 60", "--rate 200 --duration 2m")
def load(
    *,
    shape: Annotated[Literal["steady", "step", "spike", "soak"], typer.Option(help="Load over time.")] = "steady",
    users: Annotated[int, typer.Option(metavar="N", min=1, help="Closed loop: users at the height of the shape.")] = 50,
    rate: Annotated[
        float | None,
        typer.Option(parser=above_zero, metavar="R", help="Open loop: requests a second at the height of the shape."),
    ] = None,
    arrivals: Annotated[
        Literal["poisson", "constant"], typer.Option(help="Open loop: how requests arrive.")
    ] = "poisson",
    think_ms: Annotated[
        float, typer.Option(parser=not_negative, metavar="MS", help="Closed loop: mean pause after an answer.")
    ] = 0.0,
    duration: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", show_default="of the shape", help="Such as 90, 90s, 5m or 1h."),
    ] = None,
    url: Url = None,
    features_url: Annotated[
        str | None, typer.Option(parser=url, metavar="URL", help="extract_features of that pipeline, for events.")
    ] = None,
    population: Population = 1000,
    user_ids: UserIds = None,
    zipf: Annotated[
        float,
        typer.Option(
            parser=not_negative, metavar="S", help="Exponent of the users' popularity; 0 for equal popularity."
        ),
    ] = 1.0,
    no_events: Annotated[bool, typer.Option("--no-events", help="Send no events, which the store would keep.")] = False,
    seed: Seed = 0,
    report: Annotated[Path, typer.Option(metavar="DIR", help="Folder of report.html and report.json.")] = Path(
        "load-report"
    ),
    ca_file: CaFile = None,
    port: RunningPort = None,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """
    Run a load test and write a report; fail if a limit is broken.

    Environment variables set the limits, such as MAX_P99_MS.
    """


@verb(_GROUP, "loadtests.simulate:run", "", "--users 400 --lists 3", "--shift --within 5m")
def simulate(
    *,
    users: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Users of the demo data who look.")] = 1000,
    lists: Annotated[int, typer.Option(metavar="N", min=1, help="Lists that each user looks at.")] = 2,
    top_k: Annotated[int, typer.Option(metavar="K", min=1, max=100, help="Items of a list.")] = 5,
    callers: Annotated[int, typer.Option(metavar="N", min=1, help="Requests in flight.")] = 8,
    bias: Annotated[
        float,
        typer.Option(
            parser=not_negative, metavar="B", help="Position p gets the attention p^-B; 0 for no position bias."
        ),
    ] = 0.7,
    seed: Seed = 0,
    shift: Annotated[
        bool, typer.Option("--shift", help="Change all tastes after a list, and wait until a new model follows.")
    ] = False,
    within: Annotated[
        float, typer.Option(parser=duration, metavar="TIME", show_default="10m", help="Longest wait with --shift.")
    ] = 600.0,
    url: Url = None,
    events_url: Annotated[
        str | None, typer.Option(parser=url, metavar="URL", help="Broker of that pipeline, for the clicks.")
    ] = None,
    port: RunningPort = None,
    as_json: Json = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """
    Let users with planted tastes look at lists and click.

    The pipeline runs with `up --exposures` on the demo data. Clicks go through the broker and name their exposures.
    With --shift, the loop runs beside it (`loop --every 30s`), and --lists does not count.
    """
    if shift and url:
        raise typer.BadParameter("--shift reads the exposure log of --state-dir; leave out --url")
    if url and not events_url:
        raise typer.BadParameter("--url needs --events-url, the Broker of that pipeline")


@verb(_GROUP, "tools.plan.verb:plan", "--rps 500 --p99-ms 150")
def plan(
    *,
    rps: Annotated[float, typer.Option(parser=above_zero, metavar="R", help="Requests a second to plan for.")],
    p99_ms: Annotated[float, typer.Option(parser=above_zero, metavar="MS", help="99th percentile of latency to keep.")],
    url: Url = None,
    levels: Annotated[
        str, typer.Option(parser=counts, metavar="N,N,…", help="Numbers of callers.")
    ] = "1,2,4,8,16,32,64",
    step_s: Annotated[
        float,
        typer.Option(
            parser=above_zero, metavar="SECONDS", help="Length of a step; below 6 the effect of coalescing is unclear."
        ),
    ] = 6.0,
    population: Population = 1000,
    user_ids: UserIds = None,
    ca_file: CaFile = None,
    as_json: Json = False,
    port: RunningPort = None,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Measure the running pipeline and recommend settings for a target load."""


@verb(
    _GROUP,
    "tools.experiments:run",
    "plan --lift 10%",
    "plan --rate 0.4 --lift 10%",
    "start colours --arm control=50% --arm red=50%,tag=red --users 4000",
    "list",
    "report",
    "guard --every 1m",
    "stop colours --arm red",
    "stop colours",
)
def experiments(
    action: Annotated[
        Literal["plan", "start", "list", "report", "guard", "stop"],
        typer.Argument(help="What to do; `guard` stops arms that are worse."),
    ],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The experiment.")] = None,
    *,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARM",
            help="start: NAME=SHARE and tag=TAG, diversity=D or exploration=SHARE, with commas; stop: NAME.",
        ),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(metavar="LAYER", show_default="its own", help="start: share no user with its others.")
    ] = None,
    share: Annotated[
        float, typer.Option(parser=share, metavar="100%", help="start: share of the users of the layer.")
    ] = 1.0,
    users: Annotated[
        int, typer.Option(metavar="N", min=1, help="start: users that the plan asks for, in all arms.")
    ] = 10_000,
    rate: Annotated[
        float | None,
        typer.Option(
            parser=above_zero,
            metavar="R",
            show_default="that of the log",
            help="plan: mean actions per list of a user.",
        ),
    ] = None,
    deviation: Annotated[
        float | None,
        typer.Option(
            parser=above_zero,
            metavar="D",
            show_default="that of the log, or root of --rate",
            help="plan: standard deviation between users.",
        ),
    ] = None,
    lift: Annotated[float, typer.Option(parser=share, metavar="10%", help="plan: change to find.")] = 0.1,
    follow: Annotated[
        float,
        typer.Option(
            parser=duration, metavar="TIME", show_default="24h", help="Time after a user's first list that counts."
        ),
    ] = 86_400.0,
    window: Annotated[
        float,
        typer.Option(
            parser=duration,
            metavar="TIME",
            show_default="24h",
            help="Longest time from an answer to an action that names no exposure.",
        ),
    ] = 86_400.0,
    every: Annotated[
        float | None,
        typer.Option(
            parser=duration, metavar="TIME", show_default="once", help="report and guard: repeat until Ctrl-C."
        ),
    ] = None,
    store: Store = None,
    as_json: Json = False,
    namespace: Namespace = None,
    kn: Kn = "kn",
    state_dir: StateDir = STATE_DIR,
) -> None:
    """
    Run experiments, and show what was shown and what users did with it, by model and arm.

    `up --exposures` keeps both. Each user stays in one arm.
    """
    if action in {"start", "stop"} and not name:
        raise typer.BadParameter(f"{action} needs the NAME of the experiment")
    if action == "start" and len(arm or ()) < 2:
        raise typer.BadParameter("start needs two --arm or more, the control first, such as --arm control=50%")
    if deviation and rate is None:
        raise typer.BadParameter("--deviation needs --rate")
    if (rate or deviation) and action != "plan":
        raise typer.BadParameter("--rate and --deviation go with plan")
    if every is not None and action not in {"report", "guard"}:
        raise typer.BadParameter("--every goes with report and guard")


@verb(_GROUP, "tools.bench.verb:bench", "pipeline", "topk --json --check", "train --interactions ratings.csv")
def bench(
    name: Annotated[Bench, typer.Argument(help="The benchmark.")],
    *,
    as_json: Json = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if a target is missed.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Toy size, which shows that it runs, not how fast.")] = False,
    interactions: Interactions = None,
    format_: Format = "csv",
) -> None:
    """Run a benchmark."""
    if interactions and name != "train":
        raise typer.BadParameter("--interactions goes with train")
