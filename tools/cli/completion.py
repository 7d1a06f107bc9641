"""The script that makes a shell complete verbs and options."""

import shlex
import sys

from typer._completion_shared import get_completion_script

from tools.cli.app import COMPLETE_VARIABLE, PROGRAM

_SEARCHED = {"bash": " $1 ", "zsh": f" {PROGRAM})", "fish": f" {PROGRAM})"}


def completion(*, shell: str) -> int:
    """
    Print the completion script.

    The script asks this project's Python. It must not start `./run.sh`, because that name belongs to many projects.
    """
    script = get_completion_script(prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, shell=shell)
    asked = _SEARCHED[shell]
    command = shlex.join([sys.executable, "-m", "tools.cli"])
    print(script.replace(asked, asked.replace(asked.strip(" )"), command)))
    return 0
