"""`python -m loadtests`: see `loadtests.cli`."""

import sys

# locust replaces the standard library's sockets by cooperative ones, so it has to be imported before any other module.
import locust  # noqa: F401

from loadtests.cli import main

if __name__ == "__main__":
    sys.exit(main())
