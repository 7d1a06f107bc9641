import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from localkn import processes
from recsys.declaration.reader import default_declaration
from tests.figures import print_figures
from tests.leftovers import killed_leftovers
from tests.programs import NO_REDIS
from tests.virtual_time import VirtualClock, virtual_clock
from tests.waiting import LIMIT_S
from tools.bench.redis_server import PROGRAM, RedisServer, redis_running

pytest_plugins = ["tests.demo", "tests.object_store"]

# BLAS threads spin while they wait, and the other workers of the test run need these cores. This takes effect because no
# module above imports numpy. Processes that tests start inherit the variable.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# LightGBM imports scikit-learn if it finds it, which takes 2 s of CPU. Only the example with its own model installs it.
sys.modules["sklearn"] = None  # type: ignore[assignment]

# Hypothesis's limit of 200 ms for an example fails on a busy machine.
settings.register_profile("explore", deadline=None, derandomize=False)
settings.register_profile("repeat", deadline=None, derandomize=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice between the ordinary tests and the scenarios, and the options of drawn examples."""
    parser.addoption("--scenarios", action="store_true", help="run the long scenarios instead of the ordinary tests")
    parser.addoption("--explore", action="store_true", help="draw new examples instead of the same ones in every run")
    parser.addoption("--fuzz-seconds", type=float, default=20.0, help="duration of tests/hostile/fuzz")
    parser.addoption("--fuzz-seed", type=int, help="repeat the round of tests/hostile/fuzz with this seed")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the ordinary tests, or with --scenarios the scenarios. A test that is named on the command line always runs."""
    if any("::" in argument for argument in config.args):
        return
    wanted = bool(config.getoption("--scenarios"))
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        (kept if ("scenario" in item.keywords) == wanted else dropped).append(item)
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures of all folders."""
    print_figures(terminalreporter)


def pytest_configure(config: pytest.Config) -> None:
    """Choose the examples of property tests, and let the processes of tests be interrupted."""
    settings.load_profile("explore" if config.getoption("--explore") else "repeat")
    if not config.getoption("--explore"):
        # Hypothesis also tries constants of the imported modules, and the order of the tests decides what is imported.
        config.add_cleanup(_fixed_constants().undo)
    # A background run ignores SIGINT, and the processes that tests interrupt inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _fixed_constants() -> pytest.MonkeyPatch:
    patch = pytest.MonkeyPatch()
    patch.setattr(providers, "_get_local_constants", lambda: providers._local_constants)
    return patch


@pytest.fixture(scope="session", autouse=True)
def demo_is_declared() -> None:
    """Read the demo's declaration before any event loop runs, as a function does at its start."""
    default_declaration()


@pytest.fixture(scope="session", autouse=True)
def no_leftovers() -> Iterator[None]:
    """Let no process outlive the run, also if the run is interrupted or killed."""
    with killed_leftovers():
        yield


@pytest.fixture(scope="session")
def anyio_backend():
    """Run asynchronous tests on uvloop, as production does."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def no_blocking(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which the project's code blocks a running event loop."""
    if "may_block" in request.keywords:
        yield
        return
    with blockbuster_ctx(["chassis", "functions"]):
        yield


@pytest.fixture
def free_port() -> int:
    """Return a free TCP port on the loopback address."""
    return processes.free_port()


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    """Return the clock that the test moves; the test is marked with on_virtual_time."""
    return virtual_clock(asyncio.get_running_loop(), monkeypatch)


@pytest.fixture
def turns():
    """Return a coroutine function that yields to the event loop until everything that is ready has run."""

    async def turn(times: int = 20) -> None:
        for _ in range(times):
            await asyncio.sleep(0)

    return turn


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Start one redis-server for the session, and let stores wait for it; each test that uses it flushes it first."""
    if PROGRAM is None:
        pytest.skip(NO_REDIS)
    with redis_running(tmp_path_factory.mktemp("redis")) as server, pytest.MonkeyPatch.context() as patch:
        # On a busy machine Redis answers later than a store waits in production.
        patch.setattr("recstore.redis.TIMEOUT_S", LIMIT_S)
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def empty_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a feature store that does not exist yet, or is empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    server: RedisServer = request.getfixturevalue("redis_server")
    server.flush()
    return server.url
