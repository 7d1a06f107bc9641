"""
Read the Last.fm data of HetRec 2011.

The files are separated by tabs: `user_artists.dat` (user, artist, listening count) and `artists.dat` (id, name).
"""

from collections.abc import Iterator
from pathlib import Path

from offline.reading.lines import DataError, Row, Source, read_lines
from recsys.ranking.artefact import Item

_HEADERS = ("//userID", "userID", "//id", "id")


def read_lastfm(interactions: Path, *, items: Path | None, users: Path | None) -> Source:
    """
    Return the content of the files; rows are read on demand.

    Raises:
        DataError: a file or one of its lines cannot be used.
    """
    if users:
        raise DataError(f"{users}: the lastfm format has no users file")
    return Source(_rows(interactions), items={item.item_id: item for item in _items(items)} if items else {})


def _rows(path: Path) -> Iterator[Row]:
    for line in read_lines(path):
        fields = line.split("\t", least=3)
        if line.number == 1 and fields[0] in _HEADERS:
            continue
        yield Row(line.id(fields[0], "the user id"), line.id(fields[1], "the artist id"), line.weight(fields[2]), None)


def _items(path: Path) -> Iterator[Item]:
    for line in read_lines(path):
        fields = line.split("\t", least=2)
        if line.number == 1 and fields[0] in _HEADERS:
            continue
        yield Item(line.id(fields[0], "the artist id"), fields[1])
