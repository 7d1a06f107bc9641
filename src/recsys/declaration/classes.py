"""The classes of a team, which a declaration names as `module:Class`."""

import importlib
import re
from typing import Any

PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
NO_PATH = "must be a module and a class, such as 'shop.features:Margin'"


def import_class(path: str, *, method: str) -> type[Any]:
    """
    Import the class at *path*.

    The class must have *method*. Without this check, everyone who may write declarations could call any function of any
    module, such as `subprocess.Popen`.

    Raises:
        ValueError: the module or its class cannot be imported.
        TypeError: it is not a class, or lacks the method.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{path} cannot be imported: {error}; put its module on PYTHONPATH") from error
    if not (isinstance(found, type) and callable(getattr(found, method, None))):
        raise TypeError(f"{path} must be a class with a method {method}")
    return found
