"""
`./run.sh evaluate`: hold out a fifth of each user's items, train on the rest, and see who finds them.

With --via the pipeline that answers there is asked as well; it has to serve what `./run.sh train … --holdout …` trained on
the same training part, and its lists are compared with those of the same artefact in process.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from offline.collecting import collect_records
from offline.evaluation.baselines import BASELINES
from offline.evaluation.contenders import (
    AskError,
    count_differing,
    list_answers,
    list_by_scores,
    load_model,
    rank_by_model,
    rank_by_url,
)
from offline.evaluation.holdout import HOLDOUTS, default_holdout, split_rows
from offline.evaluation.quality import Task, make_task, measure
from offline.evaluation.report import Entry, Report
from offline.loading import add_data_options, check_data_options, load_data
from offline.matrix import fingerprint
from offline.reading.lines import DataError
from offline.searching import Search, search
from offline.state import StateDirectory, StateError
from offline.training import train
from recsys.contracts.wire import MAX_HISTORY
from recsys.ranking.artefact import ArtefactError, read_artefact
from recsys.stores.port import UserRecord


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate as told; return the exit status."""
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
        from offline.evaluation.plotting import plot  # noqa: PLC0415 - installed only where somebody draws

        plot(report, options.plot)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run.sh evaluate", description=__doc__)
    parser.add_argument("--state-dir", type=Path, default=Path(".recsys"))
    add_data_options(parser)
    parser.add_argument("--holdout", choices=HOLDOUTS, help="temporal where every row has a time, else random")
    parser.add_argument("--seed", type=int, default=0, help="of a random hold-out")
    parser.add_argument("--search", action="store_true", help="search hyper-parameters in the training part first")
    parser.add_argument("--via", metavar="URL", help="ask a running pipeline too, and compare list by list")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write evaluation.md and evaluation.json there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a png, svg or pdf")
    options = parser.parse_args(arguments)
    check_data_options(parser, options)
    if options.via and options.search:
        parser.error("--search goes with train where the model is served")
    return options


def evaluate(options: argparse.Namespace) -> Report:
    """
    Return what the contenders reach on the data *options* name.

    Raises:
        DataError: the data cannot be used.
        StateError, ArtefactError: what is served was not trained on this training part, or cannot be read.
        AskError: the pipeline does not answer as it should.
    """
    data = load_data(options)
    rows = list(data.source.rows)
    holdout = options.holdout or default_holdout(rows)
    split = split_rows(rows, holdout=holdout, seed=options.seed)
    records = collect_records(split.training, age_groups=data.source.age_groups)
    task = make_task(records, split.held_out)
    if not task.users.size:
        raise DataError("nobody has five items or more, so nothing can be held out")
    facts = {
        "dataset": data.name,
        "holdout": holdout,
        "seed": options.seed,
        "min_weight": options.min_weight,
        "users": int(task.users.size),
        "items": len(task.ratings.item_ids),
        "training_ties": int(task.ratings.weights.nnz),
        "held_out_ties": int(task.held.nnz),
        "cut_histories": sum(len(records[row].history) > MAX_HISTORY for row in task.users),
    }
    entries = [_compare_baseline(name, task) for name in tqdm(BASELINES, desc="baselines", disable=None)]
    if options.via:
        asked = _ask_served(options, records, task)
    else:
        searched = search(records, ahead=holdout == "temporal") if options.search else None
        asked = _train_and_ask(records, task, searched)
    return Report({**facts, **asked.facts}, [*entries, *asked.entries])


@dataclass(frozen=True)
class _Asked:
    entries: list[Entry]
    facts: dict[str, Any]


def _compare_baseline(name: str, task: Task) -> Entry:
    began = time.monotonic()
    score = BASELINES[name](task.ratings.weights)
    seconds = time.monotonic() - began
    return Entry.of(name, measure(list_by_scores(score, task, name=name), task), seconds=seconds)


def _train_and_ask(records: list[UserRecord], task: Task, searched: Search | None) -> _Asked:
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        manifest = train(
            records,
            items={},
            folder=Path(folder),
            dataset="",
            settings=searched.settings if searched else None,
            progress=lambda epochs: tqdm(epochs, desc="training", unit="epoch", disable=None),
        )
        seconds = time.monotonic() - began
        model = load_model(Path(folder))
    name = manifest.name + (", searched" if searched else "")
    lists = list_answers(rank_by_model(model, task, name=name), task)
    return _Asked([Entry.of(name, measure(lists, task), seconds=seconds)], {"model": manifest.version})


def _ask_served(options: argparse.Namespace, records: list[UserRecord], task: Task) -> _Asked:
    folder = _served_folder(options, records)
    model = load_model(folder)
    inside = rank_by_model(model, task, name=model.identity.name)
    outside = rank_by_url(options.via, task, name=options.via)
    entries = [
        Entry.of(f"{model.identity.name}, {where}", measure(list_answers(answers, task), task))
        for where, answers in (("in process", inside), ("served", outside))
    ]
    return _Asked(entries, {"model": model.identity.version, "differing_lists": count_differing(inside, outside)})


def _served_folder(options: argparse.Namespace, records: list[UserRecord]) -> Path:
    """Return the current model's folder, once it is sure that it knows nothing of what is held out."""
    state = StateDirectory(options.state_dir)
    current = state.current()
    if current is None:
        raise StateError(f"nothing was trained in {state.folder} yet")
    folder = state.model_path(current)
    if read_artefact(folder).manifest.training.get("fingerprint") != fingerprint(records):
        raise StateError(
            f"{folder} was not trained on this training part; run ./run.sh train with the same data options and "
            "--holdout, then up, then this again"
        )
    return folder


if __name__ == "__main__":
    sys.exit(main())
