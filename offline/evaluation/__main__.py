"""
`./run.sh evaluate`: hold out a fifth of each user's items, train on the rest, and measure which models find them.

With --via, a running pipeline is asked too. It must serve the model that `./run.sh train … --holdout …` trained on the
same training part. Its lists are compared with those of the same artefact in process.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from offline.collecting import collect_records
from offline.evaluation.asking import AskError, rank_by_url
from offline.evaluation.comparing import Outcome, compare_baselines, join_splits, train_and_compare
from offline.evaluation.contenders import count_differing, list_answers, load_model, rank_by_model
from offline.evaluation.holdout import HOLDOUTS, Holdout, default_holdout, split_rows
from offline.evaluation.quality import Task, make_task, measure
from offline.evaluation.report import Report
from offline.loading import add_data_options, check_data_options, load_data
from offline.matrix import fingerprint
from offline.reading.lines import DataError, Row
from offline.searching import search
from offline.state import StateDirectory, StateError
from recsys.contracts.wire import MAX_HISTORY
from recsys.ranking.artefact import ArtefactError, read_artefact
from recsys.records import UserRecord

_PICTURES = (".png", ".svg", ".pdf")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the evaluation that *arguments* describe; return the exit status."""
    options = _parse(arguments)
    try:
        report = evaluate(options)
    except (DataError, StateError, ArtefactError, AskError) as error:
        print(error, file=sys.stderr)
        return 1
    print(report.to_json() if options.json else report.to_markdown())
    if options.report:
        report.save(options.report)
    if options.plot:
        from offline.evaluation.plotting import plot  # noqa: PLC0415 - needed only for pictures

        plot(report, options.plot)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run.sh evaluate", description=__doc__)
    parser.add_argument("--state-dir", type=Path, default=Path(".recsys"))
    add_data_options(parser)
    parser.add_argument("--holdout", choices=HOLDOUTS, help="default: temporal if every row has a time")
    parser.add_argument("--seed", type=int, default=0, help="seed of a random hold-out")
    parser.add_argument("--splits", type=int, default=1, metavar="N", help="number of random hold-outs")
    parser.add_argument("--search", action="store_true", help="search hyper-parameters in the training part first")
    parser.add_argument("--ablate", action="store_true", help="train the model without each of its parts, too")
    parser.add_argument("--via", metavar="URL", help="ask a running pipeline too, and compare list by list")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write evaluation.md and evaluation.json there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a png, svg or pdf")
    options = parser.parse_args(arguments)
    check_data_options(parser, options)
    if options.via and (options.search or options.ablate or options.splits > 1):
        parser.error("--via evaluates a model that was trained before; omit --search, --ablate and --splits")
    if options.plot and options.plot.suffix not in _PICTURES:
        parser.error(f"--plot draws {', '.join(_PICTURES)}")
    if options.splits < 1:
        parser.error("--splits must be at least 1")
    return options


def evaluate(options: argparse.Namespace) -> Report:
    """
    Evaluate all models and baselines on the data that *options* name, and return the report.

    Raises:
        DataError: the data cannot be used.
        StateError, ArtefactError: the served model was not trained on this training part, or cannot be read.
        AskError: the pipeline gives no valid answer.
    """
    data = load_data(options)
    rows = list(data.source.rows)
    holdout = options.holdout or default_holdout(rows)
    if holdout == "temporal" and options.splits > 1:
        raise DataError("a temporal hold-out has one split only; use --splits with --holdout random")
    splits: list[list[Outcome]] = []
    facts: dict[str, Any] = {}
    for seed in range(options.seed, options.seed + options.splits):
        task = _split(rows, data.source.age_groups, holdout=holdout, seed=seed)
        outcomes, asked = _compare(options, task, holdout)
        splits.append([*compare_baselines(task), *outcomes])
        facts = facts or _describe(task) | asked
    said = {"holdout": holdout, "seed": options.seed, "splits": options.splits, "min_weight": options.min_weight}
    return Report({"dataset": data.name, **said, **facts}, join_splits(splits))


def _split(rows: Sequence[Row], age_groups: Mapping[str, str], *, holdout: Holdout, seed: int) -> Task:
    split = split_rows(rows, holdout=holdout, seed=seed)
    task = make_task(collect_records(split.training, age_groups=age_groups), split.held_out)
    if not task.users.size:
        raise DataError("no user has five items or more, so nothing can be held out; use more data")
    return task


def _describe(task: Task) -> dict[str, Any]:
    return {
        "users": int(task.users.size),
        "items": len(task.ratings.item_ids),
        "training_ties": int(task.ratings.weights.nnz),
        "held_out_ties": int(task.held.nnz),
        "cut_histories": sum(len(task.records[row].history) > MAX_HISTORY for row in task.users),
    }


def _compare(options: argparse.Namespace, task: Task, holdout: Holdout) -> tuple[list[Outcome], dict[str, Any]]:
    if options.via:
        return _ask_served(options, task)
    ahead = holdout == "temporal"
    searched = search(task.records).settings.als if options.search else None
    outcomes = train_and_compare(task, ahead=ahead, searched=searched, ablate=options.ablate)
    return outcomes, {"model": outcomes[0].version}


def _ask_served(options: argparse.Namespace, task: Task) -> tuple[list[Outcome], dict[str, Any]]:
    model = load_model(_served_folder(options, task.records))
    inside = rank_by_model(model, task, name=model.identity.name)
    outside = rank_by_url(options.via, task, name=options.via, authority=options.state_dir / "tls/ca.pem")
    outcomes = [
        Outcome(f"{model.identity.name}, {where}", measure(list_answers(answers, task), task))
        for where, answers in (("in process", inside), ("served", outside))
    ]
    return outcomes, {"model": model.identity.version, "differing_lists": count_differing(inside, outside)}


def _served_folder(options: argparse.Namespace, records: Sequence[UserRecord]) -> Path:
    """Return the folder of the current model, after checking that no held-out item was in its training data."""
    state = StateDirectory(options.state_dir)
    current = state.current()
    if current is None:
        raise StateError(f"nothing was trained in {state.folder} yet; run ./run.sh train with --holdout first")
    folder = state.model_path(current)
    if read_artefact(folder).manifest.training.get("fingerprint") != fingerprint(records):
        raise StateError(
            f"{folder} was not trained on this training part; run ./run.sh train with the same data options and "
            "--holdout, then ./run.sh up, then this command again"
        )
    return folder


if __name__ == "__main__":
    sys.exit(main())
