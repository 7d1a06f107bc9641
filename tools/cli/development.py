"""The verbs for people who change the project."""

from typing import Annotated, Literal

import typer

from tools.cli.app import WORDS, verb
from tools.cli.options import Port

_GROUP = "Develop"


@verb(_GROUP, "tools.development:test", "", "tests/ranking -k ties -x", "--scenarios", context_settings=WORDS)
def test(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[PYTEST ARGUMENTS]...", help="Passed to pytest.")
    ] = None,
    *,
    scenarios: Annotated[bool, typer.Option("--scenarios", help="Run the long scenarios instead.")] = False,
) -> None:
    """Run the tests."""


@verb(_GROUP, "tools.development:coverage", "")
def coverage() -> None:
    """Report the branch coverage of the test runs that COVERAGE=1 recorded."""


@verb(_GROUP, "tools.development:check", "")
def check() -> None:
    """Check lint, formatting, types, imports, spelling, wording, generated pages and the documentation site."""


@verb(_GROUP, "tools.development:docs", "")
def docs() -> None:
    """Regenerate the reference pages and the Grafana dashboard, and build the site in build/site."""


@verb(_GROUP, "tools.development:lock", "", "--upgrade")
def lock(
    *, upgrade: Annotated[bool, typer.Option("--upgrade", envvar="UPGRADE", help="Take the newest versions.")] = False
) -> None:
    """Compile requirements/ from pyproject.toml."""


@verb(_GROUP, "tools.screenshots:screenshots", "")
def screenshots(*, port: Port = 8080) -> None:
    """Draw the pictures of README and the documentation from a pipeline under load, with the installed Chromium."""


@verb(_GROUP, "tools.cli.completion:completion", "bash")
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell.")],
) -> None:
    """
    Print a completion script for a shell.

    For bash: `eval "$(./run.sh completion bash)"`.
    """
