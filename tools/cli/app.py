"""The application that the verbs join, and how it runs them."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.main
from typer._completion_classes import completion_init
from typer.completion import shell_complete

from recsys import __version__

PROGRAM = "./run.sh"
COMPLETE_VARIABLE = "_RUN_SH_COMPLETE"
WORDS = {"ignore_unknown_options": True}
"""Settings of a verb that passes words on to another program."""

WORK: dict[str, str] = {}
"""The function `MODULE:FUNCTION` that does the work of each verb."""

app = typer.Typer(name=PROGRAM, add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer passes the value by position
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Run, ask, train, measure and release the recommendation pipeline."""


def verb(group: str, work: str, *examples: str, **settings: Any) -> Callable[[Callable[..., None]], Callable[..., int]]:
    """
    Add a verb whose options are the parameters of the decorated function.

    The body of the decorated function checks rules between options. *work* then gets the same parameters and returns
    the exit status. It is imported only when the verb runs, so that the help and the other verbs start fast.

    Args:
        group: Heading of the help.
        work: `MODULE:FUNCTION`.
        examples: Arguments of the verb, an example each.
        settings: Of `typer.Typer.command`.
    """

    def add(function: Callable[..., None]) -> Callable[..., int]:
        name = function.__name__.replace("_", "-")

        @wraps(function)
        def run(**options: Any) -> int:
            function(**options)
            module, _, attribute = work.partition(":")
            return int(getattr(import_module(module), attribute)(**options))

        shown = [f"`{PROGRAM} {name} {example}`".replace(" `", "`") for example in examples]
        epilog = "\n\n".join(["Examples:", *shown])
        app.command(name, rich_help_panel=group, epilog=epilog, **settings)(run)
        WORK[name] = work
        return run

    return add


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; return 0, 1 if it failed, 2 for wrong arguments."""
    command = typer.main.get_group(app)
    given = list(sys.argv[1:] if words is None else words)
    if garbled := next((word for word in given if _is_garbled(word)), None):
        shown = os.fsencode(garbled).decode(errors="backslashreplace")
        print(f"{PROGRAM}: the argument {shown!r} is not UTF-8; correct it, or rename the file", file=sys.stderr)
        return 2
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        completion_init()
        return shell_complete(command, {}, PROGRAM, COMPLETE_VARIABLE, instruction)
    try:
        with command.make_context(PROGRAM, given) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException as error:
        failed = getattr(error, "ctx", None)
        where = failed.command_path if failed else PROGRAM
        print(f"{where}: {error.format_message().removesuffix('.')} (see {where} --help)", file=sys.stderr)
        return error.exit_code


def _is_garbled(word: str) -> bool:
    """Tell whether the bytes of *word* are no text. Neither a store nor a message can hold such a word."""
    return any("\ud800" <= character <= "\udfff" for character in word)
