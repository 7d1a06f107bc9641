"""
`./run.sh loop`: retrain the running local pipeline on its own store, again and again, and roll out each model.

Each round reads the store. Once it holds enough new interactions, the round trains, compares the new model with the
serving one, and updates rank-items in steps, as `./run.sh rollout` does. A model that fails a step does not serve, and
the loop goes on. With `--to`, a model that passed all steps is published to an object store. With `--offer`, the loop
judges and rolls out a model that was trained elsewhere, and ends.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from offline.boosting import LearnerError
from offline.content import read_store
from offline.delivery import deliver, parse_target
from offline.erasures import list_erasures
from offline.offer import offer as offer_model
from offline.retraining import RetrainingError, RetrainingRules, retrain
from offline.state import StateDirectory, StateError
from recrank.artefact import ArtefactError
from recrank.places import BucketPlace, PlaceError
from recstore.erasures import Erasure
from recstore.port import StoreError
from recsys.records import UserRecord
from tools.rollout.verb import roll_out

_SERVICE = "rank-items"
_TRIED_USERS = 200
_INTERRUPTED = 130


def run(
    *,
    every: float,
    once: bool,
    fewest: int,
    margin: float,
    step_duration: float,
    state_dir: Path,
    to: str | None = None,
    offer: Path | None = None,
) -> int:
    """
    Retrain every *every* seconds until Ctrl-C.

    Returns:
        130 after Ctrl-C. With *once* or *offer*: 0 if the new model serves or there is too little new data, 1 if it may
        not serve.
    """
    state, rules = StateDirectory(state_dir), RetrainingRules(fewest=fewest, margin=margin)
    try:
        place = parse_target(to) if to else None
    except PlaceError as error:
        print(error, file=sys.stderr)
        return 1
    try:
        while True:
            began = time.monotonic()
            status = _go_round(state, rules, offered=offer, step_duration=step_duration, place=place)
            if once or offer:
                return status
            time.sleep(max(0.0, every - (time.monotonic() - began)))
    except KeyboardInterrupt:
        print(f"{state.folder}: interrupted; the current model stays", file=sys.stderr)
        return _INTERRUPTED


def _go_round(
    state: StateDirectory,
    rules: RetrainingRules,
    *,
    offered: Path | None,
    step_duration: float,
    place: BucketPlace | None,
) -> int:
    say = partial(print, flush=True)
    try:
        url = state.store_url(state.require_current())
        content = asyncio.run(read_store(url))
        deploy = partial(_deploy, state, content.records, step_duration=step_duration)
        if offered:
            model: Path | None = offer_model(state, content, offered, deploy=deploy, rules=rules, say=say)
        else:
            erasures = partial(_list_erasures, url)
            model = retrain(state, content, deploy=deploy, rules=rules, say=say, erasures=erasures)
        # Last, because a model that serves is the current one also if the object store refuses it.
        if model and place:
            say(f"published: {deliver(model, place)}")
    except (ArtefactError, LearnerError, PlaceError, RetrainingError, StateError, StoreError) as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


def _list_erasures(url: str) -> list[Erasure]:
    return asyncio.run(list_erasures(url))


def _deploy(state: StateDirectory, records: Sequence[UserRecord], model: Path, *, step_duration: float) -> None:
    """Roll out *model* with requests for users of *records*."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as users:
        users.write("\n".join(record.user_id for record in records[:_TRIED_USERS]))
        users.flush()
        status = roll_out(
            service=_SERVICE,
            env=[f"MODEL_PATH={model}"],
            max_error_rate=0.001,
            max_slowdown=1.5,
            steps="5,25,100",
            step_duration=step_duration,
            requests=_TRIED_USERS,
            callers=2,
            users=Path(users.name),
            top_k=10,
            kn="kn",
            state_dir=state.folder,
        )
    if status == _INTERRUPTED:
        raise KeyboardInterrupt
    if status:
        raise RetrainingError(f"{_SERVICE} does not serve {model.name}; the report of the rollout says why")
