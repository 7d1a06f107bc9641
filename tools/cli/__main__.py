"""`python -m tools.cli VERB`: what `./run.sh VERB` runs once the packages are installed."""

import os
import sys


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
    sys.exit(run())
