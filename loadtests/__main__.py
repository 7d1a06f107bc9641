"""`python -m loadtests`: see `loadtests.cli`."""

import sys

# First of all: it makes the standard library's sockets cooperative, which has to happen before anybody imports them.
import locust  # noqa: F401

from loadtests.cli import main

if __name__ == "__main__":
    sys.exit(main())
