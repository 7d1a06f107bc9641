"""
`python -m tools.verb MODULE ARGUMENTS...`: run a module as a verb of `./run.sh`.

Ctrl-C ends every verb with status 130 and without a traceback, also while the module is still being imported. A
closed output, as with `| head`, ends it with status 141.
"""

import os
import runpy
import sys


def main() -> None:
    """Run the module that the arguments name, with the arguments that follow."""
    _, module, *_ = sys.argv
    del sys.argv[0]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    else:
        return
    sys.exit(status)


if __name__ == "__main__":
    main()
