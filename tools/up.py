"""`./run.sh up`: train if nothing was trained yet, check what will be served, and start the platform."""

import asyncio
import json
import shlex
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path

from knbroker.erasures import TopicErasure
from knbroker.queue import note
from localkn.__main__ import main as run_localkn
from localkn.state import PlatformDirectory
from offline.erasures import spread
from offline.state import Current, StateDirectory, StateError
from recrank.artefact import ArtefactError
from recstore.erasures import Erasure
from recstore.port import StoreError
from recstore.sqlite import SqliteStore
from recsys.declaration.reader import DeclarationError, read_declaration
from tools.tls import ensure_certificate

_MANIFESTS = Path(__file__).parents[1] / "knative/overlays"
# The simulated costs of Ray Serve's tutorial: 10 ms for features, 50 ms for a batch of the model.
_SIMULATED = ("extract-features:SIMULATED_LATENCY_S=0.010", "rank-items:SIMULATED_LATENCY_S=0.050")


def up(
    *,
    port: int,
    detach: bool = False,
    direct: bool = False,
    fused: bool = False,
    exposures: bool = False,
    zero: bool = False,
    tls: bool = False,
    simulate_latency: bool = False,
    dashboard_port: int | None = None,
    env_override: Sequence[str] | None = None,
    declaration: Path | None = None,
    host: Sequence[str] | None = None,
    state_dir: Path,
) -> int:
    """Train if nothing was trained yet, check what will be served, and start the platform."""
    overlay = "fused" if fused else "zero" if zero else "local-exposures" if exposures else "local"
    place = ["--state-dir", str(state_dir / "platform")]
    words = ["up", "--manifests", str(_MANIFESTS / overlay), "--commands", str(_MANIFESTS / "local/commands.yaml")]
    words += ["--port", str(port), "--dashboard-port", str(dashboard_port or port + 1), "--reports", str(state_dir)]
    words += ["--detach"] * detach + ["--direct"] * direct + [word for name in host or () for word in ("--host", name)]
    # Notice a taken port and wrong flags before training.
    if status := run_localkn([*words, *place, "--check"]):
        return status
    try:
        declared = read_declaration(declaration) if declaration else None
        state, current = _trained(state_dir)
        _tell_broker(PlatformDirectory(state_dir / "platform"), spread(state))
        changes = [
            *(_SIMULATED if simulate_latency else ()),
            *state.environment(fused=fused, declaration=declared),
            *(env_override or ()),
        ]
        user = asyncio.run(_some_user(state, current))
    except (StateError, ArtefactError, StoreError, DeclarationError) as error:
        print(error, file=sys.stderr)
        return 1
    words += [word for change in changes for word in ("--env-override", change)]
    if tls:
        words += ["--tls-cert", str(ensure_certificate(state_dir)), "--tls-key", str(state_dir / "tls/key.pem")]
    _tell(f"{current.model} and {current.store} are complete")
    _tell(f"starting Envoy, the Broker and the Services of knative/overlays/{overlay}")

    authority = state_dir / "tls/ca.pem" if tls else None
    return run_localkn([*words, *place], announce=partial(_announce, user, authority))


def _announce(user: str, authority: Path | None, text: str) -> None:
    """Print *text*, and a request to try if the platform is ready."""
    print(text)
    if "is ready at" in text:
        trust = f"--cacert {shlex.quote(str(authority))} " if authority else ""
        body = shlex.quote(json.dumps({"user_id": user, "top_k": 5}, separators=(",", ":")))
        print(f"try: curl {trust}-d {body} {text.rsplit(maxsplit=1)[-1]}")


def _trained(state_dir: Path) -> tuple[StateDirectory, Current]:
    """Return the current pair, after training on the demo data if no pair exists."""
    state = StateDirectory(state_dir)
    if state.current() is None:
        _tell(f"{state_dir}: no model yet; training on the demo data")
        # scipy takes a second to import.
        from offline.train import TrainingPlan, run  # noqa: PLC0415

        if status := run(TrainingPlan(state_dir=state_dir, if_missing=True)):
            sys.exit(status)
    return state, state.require_current()


def _tell_broker(platform: PlatformDirectory, erasures: Sequence[Erasure]) -> None:
    """Let the broker, which does not run yet, drop the dead letters about erased users."""
    if erasures:
        path = platform.events / "queue.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            note(path, [TopicErasure("user_id", each.user, each.at_us, each.readmitted) for each in erasures])
        except sqlite3.Error as error:
            raise StateError(
                f"{path}: the queue of events cannot be written: {error}; remove it or free space"
            ) from error


async def _some_user(state: StateDirectory, current: Current) -> str:
    """Return a user that the store holds; for an empty store, a user that it does not."""
    async with aclosing(SqliteStore(state.folder / current.store)) as store:
        return await anext((record.user_id async for record in store.scan() if record.history), "user_42")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
