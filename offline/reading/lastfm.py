"""
Read the Last.fm data of HetRec 2011.

The files are separated by tabs: `user_artists.dat` (user, artist, listening count) and `artists.dat` (id, name).
"""

from collections.abc import Iterator
from pathlib import Path

from offline.reading.faults import DataError, Faults, parse_each
from offline.reading.lines import Row, Source, checked_source, read_lines
from offline.reading.values import Ids, parse_weight, split
from recrank.artefact import Item
from recsys.declaration.values import Malformed

_HEADERS = ("//userID", "userID", "//id", "id")


def read_lastfm(
    interactions: Path | None, *, items: Path | None, users: Path | None, faults: Faults | None = None
) -> Source:
    """
    Return the content of the files; rows are read on demand. Without *interactions* there are no rows.

    Raises:
        DataError: a file or one of its lines cannot be used.
    """
    if users:
        raise DataError(f"{users}: the lastfm format has no users file")
    faults = faults or Faults()
    return checked_source(
        _rows(interactions, faults) if interactions else iter(()),
        items=_items(items, faults) if items else None,
        users=None,
        faults=faults,
    )


def _rows(path: Path, faults: Faults) -> Iterator[Row]:
    users, artists = Ids("the user id"), Ids("the artist id")

    def parse(text: str) -> Row:
        fields = split(text, "\t", least=3)
        return Row(users[fields[0]], artists[fields[1]], parse_weight(fields[2]), None)

    return parse_each(_without_header(path), parse, path=path, faults=faults)


def _items(path: Path, faults: Faults) -> Iterator[Item]:
    artists = Ids("the artist id")

    def parse(text: str) -> Item:
        fields = split(text, "\t", least=2)
        return Item(artists[fields[0]], fields[1])

    return parse_each(_without_header(path), parse, path=path, faults=faults)


def _without_header(path: Path) -> Iterator[tuple[int, str | Malformed]]:
    for number, text in read_lines(path):
        if isinstance(text, Malformed) or number > 1 or text.split("\t")[0] not in _HEADERS:
            yield number, text
