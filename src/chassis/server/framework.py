"""
Import the part of functions-framework and uvicorn that serves asynchronous functions.

Both packages import all that their other parts need: Flask, Werkzeug and the SDK of CloudEvents for synchronous functions,
click and watchfiles for the command line. That takes a third of the CPU of a start. This module imports empty modules in
their place. docs/adr/0001-own-entry-point.md has the measurements.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_UNUSED = frozenset({"flask", "werkzeug", "cloudevents", "click", "watchfiles"})


class _Empty(ModuleType):
    """A module, and each of its attributes, of a package that is not imported."""

    def __getattr__(self, name: str) -> "_Empty":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Empty(f"{self.__name__}.{name}")

    def __call__(self, *_: object, **__: object) -> "_Empty":
        """Decorate, or make an object, while the importing module runs."""
        return self


class _Finder(MetaPathFinder, Loader):
    """Finds an empty module for every module of the packages *left_out*."""

    def __init__(self, left_out: frozenset[str]) -> None:
        self._left_out = left_out

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] in self._left_out else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave *module* empty."""


@contextmanager
def left_out(packages: frozenset[str]) -> Iterator[None]:
    """Import empty modules in place of *packages* within the block; a later import gets the real package."""
    finder = _Finder(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _Empty)]:
            del sys.modules[name]


# With LOG_EXECUTION_ID, functions-framework writes the log through Werkzeug.
with left_out(frozenset() if os.environ.get("LOG_EXECUTION_ID") else _UNUSED):
    import uvicorn  # noqa: F401 - imported here so that its later import is short
    from functions_framework.aio import create_asgi_app, http

__all__ = ["create_asgi_app", "http"]
