"""The names that a stage imports from `chassis`."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import chassis


def _declared() -> dict[str, str]:
    """Return the module of each name that type checkers see."""
    tree = ast.parse(Path(chassis.__file__).read_text("utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module != "typing"]
    return {alias.name: str(node.module) for node in found for alias in node.names}


@pytest.mark.parametrize(("name", "module"), _declared().items())
def test_a_public_name_is_the_object_of_its_module(name, module):
    """`chassis.NAME` is the same object as NAME of the module that type checkers see."""
    assert getattr(chassis, name) is getattr(importlib.import_module(module), name)


def test_type_checkers_see_every_public_name():
    """The imports for type checkers declare the names that `chassis` loads, and no others."""
    assert set(_declared()) == set(chassis._MODULES)


def test_an_unknown_name_is_an_attribute_error():
    """A name that `chassis` does not have raises AttributeError, so `hasattr` and `import` work as usual."""
    assert not hasattr(chassis, "Bacher")


def test_a_name_loads_no_module_of_another_name():
    """Importing `Reader` loads neither the server nor the HTTP client."""
    code = "import sys; from chassis import Reader; print(*[name for name in sys.modules if 'chassis' in name])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.split() == ["chassis", "chassis.environment"]
