"""All verbs, in the order of the help."""

from tools.cli import data, development, local, measurements, releases, requests  # noqa: F401 - each registers its verbs
from tools.cli.app import app, main

__all__ = ["app", "main"]

GROUPS = ("Run it", "Ask it", "Your data", "Measure", "Release", "Develop")

# Modules may be imported in any order; within a group the verbs keep the order of their module.
app.registered_commands.sort(key=lambda command: GROUPS.index(str(command.rich_help_panel)))
