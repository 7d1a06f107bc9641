"""`./run.sh export --to FILE`: write the recommendations for all users of the current store into a file."""

import asyncio
import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import msgspec
from threadpoolctl import threadpool_limits

from offline.catalogue import read_entries
from offline.export import ExportError, ExportJournal, export
from offline.lists import check_parquet
from offline.progress import progress
from offline.reading.faults import DataError
from offline.state import StateDirectory, StateError
from recrank.artefact import ArtefactError, read_artefact
from recrank.changes import change
from recrank.declared_rules import apply_rules
from recrank.model import RankingModel
from recrank.own_models import open_model
from recstore.erasures import fingerprint
from recstore.port import FeatureStore, StoreError
from recstore.urls import open_store
from recsys.declaration.agreement import agree
from recsys.declaration.reader import DeclarationError, read_declaration

_INTERRUPTED = 130


def run(*, to: Path, top_k: int, store: str | None = None, declaration: Path | None = None, state_dir: Path) -> int:
    """Export the lists; return the exit status."""
    try:
        if to.suffix == ".parquet":
            check_parquet(to)
        state = StateDirectory(state_dir)
        current = state.require_current()
        artefact = read_artefact(state.model_path(current))
        given = read_declaration(declaration) if declaration else None
        rules = agree(given, artefact.declaration, holder="the model", giver="--declaration", features=True).rules
        url = store or state.store_url(current)
        entries = asyncio.run(read_entries(url, password=os.environ.get("FEATURE_STORE_PASSWORD")))
        offer = hashlib.sha256(msgspec.json.encode([rules, sorted(entries.items())])).hexdigest()
        start = ExportJournal(artefact.manifest.version, url, top_k, offer)
        with (
            # The bits of a score do not depend on the number of threads, and BLAS's own threads would only wait.
            threadpool_limits(limits=1),
            ThreadPoolExecutor(os.cpu_count() or 1) as pool,
        ):
            changed, _ = change(artefact, entries)
            model = apply_rules(rules, open_model(changed, workers=os.cpu_count() or 1, pool=pool))
            model.make_unavailable([item_id for item_id, each in entries.items() if not each.is_offered])
            done = asyncio.run(_export(url, model, to, start))
    except (DataError, DeclarationError, ExportError, StateError, ArtefactError, StoreError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{to}: interrupted; the same command continues", file=sys.stderr)
        return _INTERRUPTED
    print(f"{to}: {done.users:,} users, up to {top_k} items each, by model {start.model}")
    return 0


async def _export(url: str, model: RankingModel, to: Path, start: ExportJournal) -> ExportJournal:
    async with aclosing(open_store(url, password=os.environ.get("FEATURE_STORE_PASSWORD"))) as opened:
        users = await _count(opened)
        start = msgspec.structs.replace(start, erased=fingerprint(await opened.erasures()))
        with progress(f"writing {to.name}", users, "users") as show:
            return await export(opened, model, to, start=start, progress=show)


async def _count(store: FeatureStore) -> int:
    """Return the number of users, which costs a scan of the store."""
    users = 0
    async for _ in store.scan():
        users += 1
    if not users:
        raise ExportError("the feature store holds no users; run ./run.sh train first")
    return users
