"""`docs/reference/cli.md`, which `./run.sh VERB --help` prints where nothing is installed yet."""

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import typer.main

from tools.cli.app import PROGRAM
from tools.cli.verbs import app

_HEAD = """# Command line

`./run.sh docs` generates this page from `tools/cli`.

`./run.sh VERB` installs what the verb needs into `.venv` and runs it. `./run.sh VERB --help` prints
the options and does nothing else. The exit status is 0, 1 for a failure, 2 for wrong arguments and
130 after Ctrl-C. `./run.sh --version` prints the version. For completion in bash, run
`eval "$(./run.sh completion bash)"`; zsh and fish have scripts too.
"""


def render() -> str:
    """Return the page as Markdown."""
    return _HEAD + "\n" + "\n".join(_overview()) + "\n\n" + "\n".join(_sections()).rstrip() + "\n"


def _groups() -> Iterator[tuple[str, list[Any]]]:
    commands = typer.main.get_group(app).commands.values()
    for group, verbs in groupby(commands, key=lambda command: str(getattr(command, "rich_help_panel", ""))):
        yield group, list(verbs)


def _overview() -> Iterator[str]:
    yield "| | verb | |"
    yield "|---|---|---|"
    for group, verbs in _groups():
        for number, verb in enumerate(verbs):
            yield f"| {'' if number else group} | `{verb.name}` | {_summary(verb)} |"


def _sections() -> Iterator[str]:
    for group, verbs in _groups():
        yield f"## {group}\n"
        for verb in verbs:
            context = verb.make_context(f"{PROGRAM} {verb.name}", [], resilient_parsing=True)
            yield f"### {verb.name}\n"
            yield from (textwrap.fill(" ".join(part.split()), 100) + "\n" for part in verb.help.split("\n\n"))
            for parameter in verb.params:
                yield _parameter(parameter, context)
            yield "\n```sh"
            yield from (line.strip("`") for line in verb.epilog.split("\n\n")[1:])
            yield "```\n"


def _summary(verb: Any) -> str:
    return " ".join(verb.help.split("\n\n")[0].split()).rstrip(".")


def _parameter(parameter: Any, context: Any) -> str:
    """Return an option or an argument as an item of a list, with its default."""
    option = parameter.param_type_name == "option"
    flag = option and parameter.is_flag
    kind = "" if flag else parameter.metavar or parameter.display_type(context).strip("<>")
    name = f"{', '.join(parameter.opts)} {kind}".strip() if option else kind
    text = f"- `{name}`: {parameter.help}"
    if parameter.required:
        text += " Required."
    elif isinstance(parameter.show_default, str):
        text += f" Default: {parameter.show_default}."
    elif not flag and parameter.default not in (None, ""):
        text += f" Default: `{parameter.default}`."
    return textwrap.fill(text, 100, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
