"""
Write the recommendations for all users into a file.

The lists are those that the pipeline serves for the same store and model. An export that was interrupted continues:

    FILE.partial   the lists so far, as JSON lines or CSV
    FILE.journal   the position up to which FILE.partial is whole, and which export it belongs to
    FILE           appears when it is complete

Each step is on disk before the next begins. A killed export leaves a partial file that is at least as long as the
journal says; the next run cuts it there and goes on with the users that follow.
"""

import fcntl
import os
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import IO

import msgspec

from offline.lists import FORMATS
from offline.queries import query_of
from recrank.answers import answer_items
from recrank.model import RankingModel
from recstore.erasures import fingerprint
from recstore.port import FeatureStore
from recsys.contracts.wire import Recommendations
from recsys.records import UserRecord

_BATCH = 64
# A killed export repeats the work for at most this many users.
_CHUNK = 2048


class ExportError(Exception):
    """The file cannot be written; the message says why and what to do."""


class ExportJournal(msgspec.Struct, frozen=True):
    """
    The state of an export.

    Attributes:
        model: Version of the model.
        store: The feature store.
        top_k: Length of the lists.
        offer: Digest of the rules and of the changes of the catalogue.
        erased: Fingerprint of the erased users, who are in no list.
        user_id: The last user in the partial file.
        users: Users in the partial file.
        size: Length of the partial file in bytes.
    """

    model: str
    store: str
    top_k: int
    offer: str = ""
    erased: str = ""
    user_id: str = ""
    users: int = 0
    size: int = 0


def rank_records(model: RankingModel, records: Sequence[UserRecord], *, top_k: int) -> list[Recommendations]:
    """Return the list of each record, with the scores of the served answers."""
    queries = [query_of(record, top_k) for record in records]
    rankings = chain.from_iterable(model.rank(queries[at : at + _BATCH]) for at in range(0, len(queries), _BATCH))
    return [
        Recommendations(record.user_id, answer_items(ranking))
        for record, ranking in zip(records, rankings, strict=True)
    ]


async def export(
    store: FeatureStore,
    model: RankingModel,
    target: Path,
    *,
    start: ExportJournal,
    progress: Callable[[int], None] = lambda _: None,
) -> ExportJournal:
    """
    Write the lists of all users of *store* to *target*, and return the final journal.

    Args:
        store: The feature store.
        model: The model.
        target: The file; its suffix chooses the format.
        start: The journal of a new export: the model, the store, the length of the lists and the erased users.
        progress: Takes the number of users written so far.

    Raises:
        ExportError: a file cannot be written, or users were erased during the export.
        StoreError: the store cannot be read.
    """
    lists = FORMATS[target.suffix]
    partial, journal_path = (target.with_name(target.name + suffix) for suffix in (".partial", ".journal"))
    try:
        with partial.open("ab") as out:
            _hold(out, partial)
            journal = _resume(journal_path, out, start)
            progress(journal.users)
            async for records in _chunks(store.scan(), after=journal.user_id):
                ranked = rank_records(model, records, top_k=start.top_k)
                out.write(lists.encode(ranked, first=not journal.users))
                journal = msgspec.structs.replace(
                    journal, user_id=records[-1].user_id, users=journal.users + len(records), size=out.tell()
                )
                _note(out, journal, journal_path)
                progress(journal.users)
            if fingerprint(await store.erasures()) != start.erased:
                partial.unlink()
                journal_path.unlink()
                raise ExportError(f"{target}: users were erased during the export; repeat the command")
            lists.finish(partial, target)
            journal_path.unlink(missing_ok=True)
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ExportError(
            f"{error.filename or target}: cannot be written: {error.strerror or error}; "
            "check the folder and its free space, then repeat the command to continue"
        ) from error
    return journal


def _hold(out: IO[bytes], partial: Path) -> None:
    """
    Lock *out*, the open file at *partial*, until it is closed.

    Raises:
        ExportError: another export writes the file, or has just completed it.
    """
    try:
        fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = partial.exists() and os.path.samestat(os.fstat(out.fileno()), partial.stat())
    except BlockingIOError:
        is_ours = False
    if not is_ours:
        raise ExportError(f"{partial}: another export writes this file; wait until it ends, or name another file")


def _resume(path: Path, out: IO[bytes], start: ExportJournal) -> ExportJournal:
    """Return the journal to go on with, after cutting the partial file to the length that the journal says."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=ExportJournal)
        is_same = msgspec.structs.replace(start, user_id=found.user_id, users=found.users, size=found.size) == found
        whole = is_same and os.fstat(out.fileno()).st_size >= found.size
    except (FileNotFoundError, msgspec.DecodeError):
        whole = False
    journal = found if whole else start
    out.truncate(journal.size)
    return journal


def _note(out: IO[bytes], journal: ExportJournal, path: Path) -> None:
    """Bring the lists to disk, then the journal that counts them."""
    out.flush()
    os.fsync(out.fileno())
    draft = path.with_name(path.name + ".draft")
    with draft.open("wb") as written:
        written.write(msgspec.json.encode(journal))
        written.flush()
        os.fsync(written.fileno())
    draft.replace(path)


async def _chunks(records: AsyncIterator[UserRecord], *, after: str) -> AsyncIterator[list[UserRecord]]:
    """Yield the records of the users after *after* in chunks."""
    chunk: list[UserRecord] = []
    async for record in records:
        if record.user_id > after:
            chunk.append(record)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
