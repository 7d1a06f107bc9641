"""The entry point leaves out packages that no function here uses, and the threads of OpenBLAS."""

import os
import subprocess
import sys

import pytest

from chassis.server.framework import left_out

pytestmark = pytest.mark.may_block

UNUSED = {"flask", "werkzeug", "jinja2", "click", "cloudevents", "watchfiles"}


def test_the_server_starts_without_the_synchronous_half():
    """The entry point loads none of the packages, and a function that needs one can import it."""
    program = "import sys, chassis.server.__main__; print(*sys.modules); import flask, click; flask.Flask, click.echo"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"functions_framework.aio", "uvicorn"} <= loaded
    assert UNUSED & loaded == set()


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("3", "3")])
def test_openblas_starts_no_threads(given, expected):
    """A function has one thread of OpenBLAS, unless its environment names another number."""
    env = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    if given:
        env["OPENBLAS_NUM_THREADS"] = given
    program = (
        "import os, chassis.server.__main__, threadpoolctl, numpy\n"
        "pools = [pool['num_threads'] for pool in threadpoolctl.threadpool_info() if pool['user_api'] == 'blas']\n"
        "assert all(threads <= int(os.environ['OPENBLAS_NUM_THREADS']) for threads in pools), pools\n"
        "print(os.environ['OPENBLAS_NUM_THREADS'])"
    )
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_a_later_import_gets_the_real_package():
    """Within the block a package is empty and any name in it exists; afterwards it is not imported."""
    with left_out(frozenset({"this_package_does_not_exist"})):
        from this_package_does_not_exist import part  # type: ignore[import-not-found]

        assert part.decorate("x").anything is not None
    assert "this_package_does_not_exist" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        import this_package_does_not_exist  # noqa: F401


def test_a_package_that_is_already_imported_stays():
    """An empty module never replaces a real one."""
    with left_out(frozenset({"json"})):
        import json
    assert json.loads("[1]") == [1]
    assert "json" in sys.modules
