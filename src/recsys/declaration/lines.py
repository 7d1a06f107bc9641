"""Find the lines of a TOML text on which its tables and keys stand. tomllib does not report them."""

import re
from collections.abc import Iterator, Mapping

_TABLE = re.compile(r"\s*\[(?P<double>\[?)\s*(?P<keys>[^\[\]]+?)\s*\]{1,2}\s*(#.*)?")
_KEY = r"[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'"
_ASSIGNMENT = re.compile(rf"\s*(?P<keys>({_KEY})(\s*\.\s*({_KEY}))*)\s*=")
_PARTS = re.compile(_KEY)
_LONG_QUOTES = re.compile(r'"""|\'\'\'')


def find_lines(text: str) -> Mapping[str, int]:
    """Return the line of each table and key of the TOML *text*, by its path, such as `$.rules.boosts[0].score`."""
    return {path: number for number, path in _paths(text)}


def line_of(lines: Mapping[str, int], path: str) -> int:
    """Return the line of *path*, or of the nearest table or key around it; 1 without any."""
    while path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return lines.get(path, 1)


def _paths(text: str) -> Iterator[tuple[int, str]]:
    table, counts, is_quoted = "$", dict[str, int](), False
    for number, line in enumerate(text.splitlines(), 1):
        begins_quoted = is_quoted
        is_quoted ^= len(_LONG_QUOTES.findall(line)) % 2 == 1
        if begins_quoted:
            continue
        if header := _TABLE.fullmatch(line):
            table = _joined("$", header["keys"])
            if header["double"]:
                counts[table] = counts.get(table, -1) + 1
                table += f"[{counts[table]}]"
            yield number, table
        elif key := _ASSIGNMENT.match(line):
            yield number, _joined(table, key["keys"])


def _joined(path: str, keys: str) -> str:
    return ".".join([path, *(part.strip("\"'") for part in _PARTS.findall(keys))])
