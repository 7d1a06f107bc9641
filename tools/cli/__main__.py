"""`python -m tools.cli VERB`: what `./run.sh VERB` runs once the packages are installed."""

import io
import os
import signal
import sys
from typing import cast


def end_as_on_ctrl_c() -> None:
    """Let SIGTERM end a verb as Ctrl-C does, so that benchmarks and the demo stop the processes that they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def run() -> int:
    """Run a verb without a traceback after Ctrl-C or on a closed output, as with `| head`, also while it is imported."""
    try:
        from tools.cli import verbs

        status = verbs.main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


if __name__ == "__main__":
    # As on stderr: a title that the terminal's encoding lacks is escaped instead of ending the verb.
    cast("io.TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")
    end_as_on_ctrl_c()
    sys.exit(run())
