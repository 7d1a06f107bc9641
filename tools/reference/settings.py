"""The tables of settings: name, default and bounds as the functions read them, and the meaning from `MEANINGS`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar
from unittest.mock import patch

from chassis.environment import Reader
from chassis.server.settings import ServingSettings
from functions.extract_features import settings as extract_features
from functions.rank_items import settings as rank_items
from functions.recommend import settings as recommend
from tools.reference.meanings import EVERY_FUNCTION, MEANINGS
from tools.reference.tables import NONE, table

T = TypeVar("T", int, float)

_MODULES = {"extract_features": extract_features, "rank_items": rank_items, "recommend": recommend}
# Enough for every function to read all its variables without a fault.
_ENVIRONMENT = {
    "AUTH": "off",
    "FEATURE_STORE_URL": "memory:",
    "MODEL_PATH": "/models",
    "EXTRACT_FEATURES_URL": "http://features",
    "RANK_ITEMS_URL": "http://ranking",
}
_UNBOUNDED = {math.inf, 2**31}


@dataclass(frozen=True)
class Variable:
    """
    An environment variable as a function reads it.

    Attributes:
        name: Its name.
        default: As a reader of the page should see it; empty for none.
        values: Accepted values; empty for any text.
    """

    name: str
    default: str
    values: str


class SettingsRecorder(Reader):
    """Reads like a `Reader`, and records the variables into `read`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        super().__init__(env)
        self.read: dict[str, Variable] = {}

    def text(self, name: str, default: str | None = None) -> str:
        """Record the variable, and read it."""
        self._record(name, "required" if default is None else _as_code(default.removeprefix("-")), "")
        return super().text(name, default)

    def secret(self, name: str) -> str | None:
        """Record the variable, and read it."""
        self._record(name, "", "")
        return super().secret(name)

    def flag(self, name: str, *, default: bool) -> bool:
        """Record the variable, and read it."""
        self._record(name, str(int(default)), "0 or 1")
        return super().flag(name, default=default)

    def _number(self, name: str, default: T, kind: type[T], least: T, most: T) -> T:
        bounds = f"{_plain(least)} or more" if most in _UNBOUNDED else f"{_plain(least)} to {_plain(most)}"
        self._record(name, _plain(default), bounds)
        return super()._number(name, default, kind, least, most)

    def _record(self, name: str, default: str, values: str) -> None:
        self.read.setdefault(name, Variable(name, default, values))


def _as_code(text: str) -> str:
    return text and f"`{text}`"


def _plain(number: float) -> str:
    """Return *number* as a user writes it into a manifest: 10 rather than 10.0."""
    return str(int(number)) if number == int(number) else str(number)


def variables(function: str) -> dict[str, Variable]:
    """Return the variables that *function* reads, in the order in which it reads them."""
    recorder = SettingsRecorder(_ENVIRONMENT)
    with patch.object(_MODULES[function], "Reader", lambda _: recorder):
        _MODULES[function].Settings.from_env(_ENVIRONMENT)
    return recorder.read


def tables() -> dict[str, str]:
    """
    Return the tables by name.

    Raises:
        ValueError: a variable has no meaning in `MEANINGS`, or the other way around.
    """
    read = {function: variables(function) for function in _MODULES}
    recorder = SettingsRecorder(_ENVIRONMENT)
    ServingSettings.read(recorder, name="", max_body_bytes=2**20)
    shared = {name: _shared(name, read) for name in recorder.read}
    own = {function: {n: v for n, v in found.items() if n not in shared} for function, found in read.items()}
    return {name: _table(name, found) for name, found in {EVERY_FUNCTION: shared, **own}.items()}


def _shared(name: str, read: dict[str, dict[str, Variable]]) -> Variable:
    """Return the variable with its default, or with the default of each function."""
    defaults: dict[str, list[str]] = {}
    for function, found in read.items():
        default = found[name].default
        is_name = default == _as_code(function.replace("_", "-"))
        defaults.setdefault("the function's name" if is_name else default, []).append(function)
    default = next(iter(defaults))
    if len(defaults) > 1:
        default = "; ".join(f"{', '.join(functions)}: {value}" for value, functions in defaults.items())
    return Variable(name, default, read["recommend"][name].values)


def _table(name: str, found: dict[str, Variable]) -> str:
    meanings = MEANINGS[name]
    if found.keys() != meanings.keys():
        wrong = ", ".join(sorted(found.keys() ^ meanings.keys()))
        raise ValueError(f"{name}: tools/reference/meanings.py lacks a variable or has one too many: {wrong}")
    rows = [(f"`{v.name}`", v.default or NONE, v.values or NONE, meanings[v.name]) for v in found.values()]
    return table(("variable", "default", "values", "meaning"), rows)
