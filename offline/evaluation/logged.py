"""
`./run.sh evaluate --logged`: estimate from an exposure log how a candidate would have done.

The candidate ranks at the time of each logged list, with what the user's record held then. Some of the past is not in a
record: counters and attributes are those of today, and an item on which a user acted again later is missing before.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from offline.content import read_store
from offline.evaluation.contenders import load_served
from offline.evaluation.off_policy import OffPolicy, ShownLists, evaluate_lists
from offline.queries import query_of
from offline.reading.lines import DataError
from offline.state import CURRENT, StateDirectory, StateError
from recrank.artefact import ArtefactError
from recrank.model import Query, RankingModel
from recstore.exposures.records import ExposureOutcome
from recstore.exposures.urls import open_exposures
from recstore.port import StoreError
from recsys.features import UNKNOWN_AGE
from recsys.records import UserRecord
from topk.item_table import I64

_BATCH = 32
_FEW = 100.0
_SUPPORTED = 0.8


def run(
    logged: str, *, candidate: Path | None, kinds: Sequence[str], as_json: bool, report: Path | None, state_dir: Path
) -> int:
    """Print the report of `evaluate_logged`, and write it to the folder *report*; return the exit status."""
    try:
        found = evaluate_logged(logged, candidate=candidate, kinds=kinds, state_dir=state_dir)
    except (DataError, StateError, ArtefactError, StoreError) as error:
        print(error, file=sys.stderr)
        return 1
    print(found.to_json() if as_json else found.to_text())
    if report:
        (report / "logged.json").write_text(found.to_json() + "\n")
    return 0


@dataclass(frozen=True)
class LoggedReport:
    """
    The judgement of a log on a candidate.

    Attributes:
        lists: Number of lists.
        users: Number of users.
        kinds: The actions that count; empty for all.
        candidate: Version of the candidate.
        found: The estimates.
    """

    lists: int
    users: int
    kinds: tuple[str, ...]
    candidate: str
    found: OffPolicy

    def warnings(self) -> list[str]:
        """Return why the estimates deserve little trust; none if they deserve it."""
        said = []
        if self.found.support < _SUPPORTED:
            said.append(
                f"the log supports {self.found.support:.0%} of the candidate's lists, so IPS is too low and SNIPS and "
                "DR speak for the supported part; log lists with EXPLORATION on recommend"
            )
        if self.found.effective < _FEW:
            said.append(
                f"the weights leave the information of {self.found.effective:.0f} items; log more lists before you "
                "trust an interval"
            )
        return said

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps({**asdict(self), "warnings": self.warnings()}, indent=2)

    def to_text(self) -> str:
        """Return the report as lines of text."""
        counted = f"{', '.join(self.kinds) or 'actions'} per list [95 %]"
        lines = [
            f"{self.lists} lists of {self.users} users; candidate {self.candidate}",
            f"{'':8} {counted:>28} {'difference from the log [95 %]':>34}",
        ]
        for each in self.found.estimates:
            value, lift = (f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]" for one in (each.value, each.lift))
            lines.append(f"{each.name:8} {value:>28} {lift:>34}")
        lines.append(f"support {self.found.support:.2f}, information of {self.found.effective:.0f} items")
        return "\n".join([*lines, *(f"warning: {each}" for each in self.warnings())])


def evaluate_logged(
    logged: str, *, candidate: Path | None = None, kinds: Sequence[str] = (), state_dir: Path
) -> LoggedReport:
    """
    Estimate how a candidate would have done.

    Args:
        logged: A file of `ExposureOutcome`s, JSON lines; the URL of a feature store; or `current` for that of
            *state_dir*.
        candidate: Folder of its artefact; None for the current model.
        kinds: The actions that count; empty for all.
        state_dir: The state directory; its current store has the users of a file.

    Raises:
        DataError: the log is empty or cannot be read.
        StateError, ArtefactError, StoreError: the model or the store cannot be read.
    """
    state = StateDirectory(state_dir)
    folder = candidate or state.model_path(state.require_current())
    is_file = logged != CURRENT and "://" not in logged
    url = state.store_url(state.require_current()) if is_file or logged == CURRENT else logged
    password = os.environ.get("FEATURE_STORE_PASSWORD")
    exposures = read_file(Path(logged)) if is_file else asyncio.run(_read_log(url, password))
    # A fixed order gives sums with the same bits, whether the exposures come from a file or from a store.
    exposures = sorted(
        (each for each in exposures if each.items), key=lambda each: (each.user_id, each.time_us, each.exposure_id)
    )
    if len({each.user_id for each in exposures}) < 2:
        raise DataError(f"{logged}: the log holds lists of fewer than two users; send served events to the store")
    records = {each.user_id: each for each in asyncio.run(read_store(url, password=password)).records}
    model = load_served(folder)
    lists = rank_again(model, exposures, records)
    shown, ranked = number_items(exposures, lists, kinds=kinds)
    users = int(shown.users.max()) + 1
    return LoggedReport(len(exposures), users, tuple(kinds), model.identity.version, evaluate_lists(shown, ranked))


def read_file(path: Path) -> list[ExposureOutcome]:
    """
    Return the lists in the file at *path*, a line of JSON each.

    Raises:
        DataError: the file cannot be read, or a line does not hold such a list.
    """
    decode = msgspec.json.Decoder(ExposureOutcome).decode
    found = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    found.append(_checked(decode(line)))
                except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                    raise DataError(f"{path}, line {number}: not a list with its outcomes: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; name a file or the URL of a store") from error
    return found


def _checked(exposure: ExposureOutcome) -> ExposureOutcome:
    if not all(0 < item.propensity <= 1 for item in exposure.items):
        raise ValueError("a propensity is not above 0 and at most 1")
    return exposure


async def _read_log(url: str, password: str | None) -> list[ExposureOutcome]:
    async with aclosing(open_exposures(url, password=password)) as log:
        scanned: AsyncIterator[ExposureOutcome] = log.scan()
        return [_checked(each) async for each in scanned]


def rank_again(
    model: RankingModel, exposures: Sequence[ExposureOutcome], records: dict[str, UserRecord]
) -> list[list[str]]:
    """Return the list of *model* for each of *exposures*, as long as the list that was shown."""
    queries = [_query(each, records.get(each.user_id)) for each in exposures]
    ranked: list[list[str]] = []
    # One thread, as in rank_items, because the bits of a fold-in may depend on the number of threads.
    with threadpool_limits(limits=1):
        for start in range(0, len(queries), _BATCH):
            ranked += [ranking.item_ids for ranking in model.rank(queries[start : start + _BATCH])]
    return ranked


def _query(exposure: ExposureOutcome, record: UserRecord | None) -> Query:
    now = record or UserRecord(exposure.user_id, UNKNOWN_AGE)
    history, avoided = (
        [item for item in items if item.time_us < exposure.time_us] for items in (now.history, now.avoided)
    )
    newest_us = max((item.time_us for item in history), default=None)
    then = msgspec.structs.replace(now, history=history, avoided=avoided, as_of_us=newest_us)
    return query_of(then, len(exposure.items), at_us=exposure.time_us)


def number_items(
    exposures: Sequence[ExposureOutcome], lists: Sequence[Sequence[str]], *, kinds: Iterable[str] = ()
) -> tuple[ShownLists, I64]:
    """
    Return *exposures* as arrays, and the *lists* of a candidate for them.

    An item gets 1 for any action of *kinds*, or for any action if there are no *kinds*; otherwise 0.
    """
    counted = {*kinds}
    width = max(len(each.items) for each in exposures)
    numbers: dict[str, int] = {}
    users: dict[str, int] = {}
    shown = ShownLists(
        np.array([users.setdefault(each.user_id, len(users)) for each in exposures], np.int64),
        np.full((len(exposures), width), -1, np.int64),
        np.ones((len(exposures), width)),
        np.zeros((len(exposures), width)),
    )
    for row, each in enumerate(exposures):
        for place, item in enumerate(sorted(each.items, key=lambda item: item.position)):
            shown.items[row, place] = numbers.setdefault(item.item_id, len(numbers))
            shown.propensities[row, place] = item.propensity
            shown.rewards[row, place] = bool(counted & {*item.outcomes} if counted else item.outcomes)
    ranked = np.full_like(shown.items, -1)
    for row, own in enumerate(lists):
        ranked[row, : len(own)] = [numbers.setdefault(item_id, len(numbers)) for item_id in own]
    return shown, ranked
