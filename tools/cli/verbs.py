"""All verbs, in the order of the help."""

from tools.cli import local, requests, data, measurements, releases, development  # noqa: F401, I001 - the help's order
from tools.cli.app import app, main

__all__ = ["app", "main"]
