"""Read a declaration from a TOML file, and report all of its faults with their lines."""

import math
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from chassis.watched_file import read_text
from chassis.wire.decoder import Decoder
from chassis.wire.problems import Fault, InvalidRequestError, ServingError
from recsys.declaration.faults import find_contradictions
from recsys.declaration.lines import find_lines, line_of
from recsys.declaration.types import Declaration

DEFAULT = Path(__file__).with_name("default.toml")

_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_decoder = Decoder(Declaration)


class DeclarationError(Exception):
    """The declaration cannot be used; the message has a line for each fault, with its file and line."""


def read_declaration(path: Path) -> Declaration:
    """
    Return the declaration in the TOML file at *path*, or in a JSON file whose name ends in `.json`.

    Raises:
        DeclarationError: the file cannot be read, or has faults.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse_declaration(text, str(path))


@cache
def default_declaration() -> Declaration:
    """Return the declaration of the demo, which a pipeline follows if it names none."""
    return read_declaration(DEFAULT)


def parse_declaration(text: str, name: str) -> Declaration:
    """
    Return the declaration in *text*; *name* is its file, for messages.

    Raises:
        DeclarationError: the text has faults.
    """
    if name.endswith(".json"):
        return _check(text.encode(), "", name)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _LINE.search(str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        raise DeclarationError(f"{name}:{line}: not TOML: {_LINE.sub('', str(error)).strip()}") from error
    except ValueError as error:  # int() refuses thousands of digits.
        raise DeclarationError(f"{name}:1: not TOML: {error}") from error
    except RecursionError as error:
        raise DeclarationError(f"{name}:1: not TOML: nested too deeply") from error
    try:
        # TOML has dates, which become text and are faults.
        body = msgspec.json.encode(_without_infinity(content))
    except RecursionError as error:
        raise DeclarationError(f"{name}:1: nested too deeply") from error
    return _check(body, text, name)


def _without_infinity(value: Any) -> Any:
    """Return *value* with numbers that are not finite as JSON numbers beyond the range of a float."""
    match value:
        case dict():
            return {name: _without_infinity(member) for name, member in value.items()}
        case list():
            return [_without_infinity(item) for item in value]
        case float() if not math.isfinite(value):
            return msgspec.Raw(b"1e999")
    return value


def _check(body: bytes, text: str, name: str) -> Declaration:
    try:
        return _decoder.read(body, _checked)
    except ServingError as error:
        faults = list(error.faults) or [Fault("$", str(error))]
        raise DeclarationError("\n".join(_describe(faults, text, name))) from error


def _checked(declaration: Declaration) -> Declaration:
    if faults := list(find_contradictions(declaration)):
        raise InvalidRequestError(faults=faults)
    return declaration


def _describe(faults: list[Fault], text: str, name: str) -> Iterator[str]:
    lines = find_lines(text)
    numbered = sorted((line_of(lines, fault.path), fault.path, fault.detail) for fault in faults)
    for line, path, detail in numbered:
        yield f"{name}:{line}: {path.removeprefix('$.')} {detail}"
