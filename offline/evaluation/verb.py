"""
`./run.sh evaluate`: hold out a fifth of each user's items, train on the rest, and measure which models find them.

Data with times is also split at a date. Users that training never saw are measured by the number of their known items.

With --via, a running pipeline is asked too. It must serve the model that `./run.sh train … --holdout …` trained on the
same training part. Its lists are compared with those of the same artefact in process.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from offline.boosting import LearnerError
from offline.evaluation.arrivals import evaluate_arrivals
from offline.evaluation.baselines import sampled_share
from offline.evaluation.comparison import StudyOutcome, compare, compare_baselines, join_splits, reference_of
from offline.evaluation.contenders import count_differing, list_answers, load_served, rank_by_model
from offline.evaluation.histories import Histories
from offline.evaluation.holdout import Holdout, default_holdout
from offline.evaluation.pipeline import AskError, rank_by_url
from offline.evaluation.quality import measure
from offline.evaluation.report import Report, Section
from offline.evaluation.studies import (
    CALENDAR,
    NEW_ITEMS,
    NEW_USERS,
    PER_USER,
    Data,
    Study,
    study_by_date,
    study_per_user,
    study_unseen,
)
from offline.inputs import DataOptions, load_data
from offline.interactions import Interactions
from offline.learnable import learnable
from offline.matrix import fingerprint
from offline.reading.lines import DataError
from offline.search import search
from offline.state import DEFAULT, StateDirectory, StateError
from recrank.artefact import ArtefactError, read_artefact
from recsys.contracts.wire import MAX_HISTORY
from recsys.records import UserRecord


@dataclass(frozen=True)
class EvaluationPlan:
    """
    What to evaluate.

    Attributes:
        data: The files.
        holdout: How to choose the fifth of each user's items; None for temporal if every row has a time, else random.
        seed: Seed of a random hold-out.
        splits: Number of random hold-outs.
        search: Search hyper-parameters in the training part first.
        ablate: Train the model without each of its parts, too.
        new_items: Hide a tenth of the items from training, and measure these alone.
        brief: Measure the hold-out per user alone, without the split at a date and unseen users.
        most_users: Largest number of users to recommend to; more are sampled.
        via: URL of a running pipeline to ask.
        state_dir: State directory of that pipeline.
    """

    data: DataOptions
    holdout: Holdout | None = None
    seed: int = 0
    splits: int = 1
    search: bool = False
    ablate: bool = False
    new_items: bool = False
    brief: bool = False
    most_users: int = 25_000
    via: str | None = None
    state_dir: Path = DEFAULT


def run(plan: EvaluationPlan, *, as_json: bool = False, report: Path | None = None, plot: Path | None = None) -> int:
    """
    Carry out *plan* and print the report; return the exit status.

    Args:
        plan: What to evaluate.
        as_json: Print JSON in place of tables.
        report: Folder for evaluation.md and evaluation.json.
        plot: File for a picture.
    """
    try:
        found = evaluate(plan)
    except (DataError, StateError, ArtefactError, AskError, LearnerError) as error:
        print(error, file=sys.stderr)
        return 1
    print(found.to_json() if as_json else found.to_markdown())
    if report:
        found.save(report)
    if plot:
        from offline.evaluation.plots import draw  # noqa: PLC0415 - needed only for pictures

        draw(found, plot)
    return 0


def evaluate(plan: EvaluationPlan) -> Report:
    """
    Evaluate all models and baselines on the data of *plan*, and return the report.

    Raises:
        DataError: the data cannot be used.
        StateError, ArtefactError: the served model was not trained on this training part, or cannot be read.
        AskError: the pipeline gives no valid answer.
    """
    loaded = load_data(plan.data)
    interactions = Interactions.of(loaded.source.rows).liked()
    data = Data(
        interactions,
        learnable(loaded.source.items, plan.data.declared),
        loaded.source.age_groups,
        loaded.source.attributes,
        plan.most_users,
        plan.seed,
        plan.data.declared,
        loaded.source.items,
    )
    holdout = plan.holdout or default_holdout(interactions)
    if holdout == "temporal" and plan.splits > 1:
        raise DataError("a temporal hold-out has one split only; use --splits with --holdout random")
    said = {
        "dataset": loaded.name,
        "holdout": holdout,
        "seed": plan.seed,
        "splits": plan.splits,
        "min_weight": plan.data.least_weight,
    }
    if plan.new_items:
        return evaluate_arrivals(data, holdout=holdout, facts=said)
    splits: list[list[StudyOutcome]] = []
    facts: dict[str, Any] = {}
    for seed in range(plan.seed, plan.seed + plan.splits):
        study = study_per_user(data, holdout=holdout, seed=seed)
        outcomes, asked = _compare(plan, study)
        splits.append(outcomes)
        facts = facts or _describe(study, outcomes) | asked
    calendar, lengths = _further(data, study, outcomes, holdout=holdout) if _is_whole(plan) else (None, [])
    return Report(said | facts, reference_of(splits[0]), join_splits(splits, PER_USER), calendar, lengths)


def _further(
    data: Data, study: Study, outcomes: Sequence[StudyOutcome], *, holdout: Holdout
) -> tuple[Section | None, list[Section]]:
    """Return the split at a date, and the sections by length of the history, of new users and of new items."""
    lengths = list(_sections(study_unseen(data, ahead=holdout == "temporal")))
    calendar = None
    if holdout == "temporal":
        study = study_by_date(data)
        outcomes = compare(study)
        calendar = _section(study, outcomes, CALENDAR) if CALENDAR in study.panels else None
    lengths += [_section(study, outcomes, panel) for panel in (NEW_USERS, NEW_ITEMS) if panel in study.panels]
    return calendar, lengths


def _is_whole(plan: EvaluationPlan) -> bool:
    """Return whether *plan* asks for all studies; further models and splits are compared on the first alone."""
    return not (plan.brief or plan.via or plan.search or plan.ablate or plan.splits > 1)


def _sections(study: Study) -> Iterator[Section]:
    outcomes = compare(study)
    for panel in study.panels:
        yield _section(study, outcomes, panel)


def _section(study: Study, outcomes: Sequence[StudyOutcome], panel: str) -> Section:
    facts = {} if study.date_us is None else {"date": f"{datetime.fromtimestamp(study.date_us / 1e6, UTC):%Y-%m-%d}"}
    users = len(study.panels[panel].records)
    return Section(panel, users, join_splits([outcomes], panel), facts)


def _describe(study: Study, outcomes: Sequence[StudyOutcome]) -> dict[str, Any]:
    panel = study.panels[PER_USER]
    share = sampled_share(Histories.of(study.records, study.ratings))
    return {
        "users": len(panel.records),
        "items": panel.catalogue,
        "training_ties": int(study.ratings.weights.nnz),
        "held_out_ties": int(panel.held.nnz),
        "cut_histories": sum(len(record.history) > MAX_HISTORY for record in panel.records),
        **(
            {"skipped": skipped}
            if (skipped := {each.name: each.note for each in outcomes if not each.qualities})
            else {}
        ),
        **({"users_of_pairs_in_baselines": round(share, 3)} if share < 1 else {}),
    }


def _compare(plan: EvaluationPlan, study: Study) -> tuple[list[StudyOutcome], dict[str, Any]]:
    if plan.via:
        return _ask_served(plan, plan.via, study)
    searched = search(study.records).settings.als if plan.search else None
    outcomes = compare(study, searched=searched, ablate=plan.ablate)
    return outcomes, {"model": next(outcome.version for outcome in outcomes if outcome.version)}


def _ask_served(plan: EvaluationPlan, url: str, study: Study) -> tuple[list[StudyOutcome], dict[str, Any]]:
    model = load_served(_served_folder(plan, study.records))
    panel, name = study.panels[PER_USER], model.identity.name
    inside = rank_by_model(model, panel, name=name)
    outside = rank_by_url(url, panel, name=url, authority=plan.state_dir / "tls/ca.pem")
    outcomes = [
        StudyOutcome(f"{name}, {where}", {PER_USER: measure(list_answers(answers, panel), panel)})
        for where, answers in (("in process", inside), ("served", outside))
    ]
    differing = count_differing(inside, outside)
    return [*compare_baselines(study), *outcomes], {"model": model.identity.version, "differing_lists": differing}


def _served_folder(plan: EvaluationPlan, records: Sequence[UserRecord]) -> Path:
    """Return the folder of the current model, after checking that no held-out item was in its training data."""
    state = StateDirectory(plan.state_dir)
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
