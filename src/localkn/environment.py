"""The environment of an instance: inherited variables, and names of the cluster turned into local ones."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

# An instance inherits these variables and no others, so that a pipeline behaves the same in every shell, as it
# does in its image.
_INHERITED = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|TERM|VIRTUAL_ENV|PYTHON\w+|LD_LIBRARY_PATH|DYLD_\w+|SSL_CERT_\w+"
)
_SERVICE_URL = re.compile(r"http://([a-z0-9.-]+)(?::80)?(?=[/?#,;\s\"']|$)")


def inherited() -> dict[str, str]:
    """Return the part of this process's environment that instances inherit."""
    return {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name)}


def localised(value: str, *, addresses: Mapping[str, int], places: Mapping[str, Path]) -> str:
    """
    Replace URLs of Services by local ones, and a mountPath at the start of *value* by its directory.

    Args:
        value: Value of an environment variable, or an argument.
        addresses: Host name of each Service to its port on this machine.
        places: mountPath to its directory on this machine.
    """
    for mount, place in places.items():
        if value == mount or value.startswith(mount.rstrip("/") + "/"):
            return str(place) + value[len(mount.rstrip("/")) :]
    return _SERVICE_URL.sub(lambda m: f"http://127.0.0.1:{addresses[m[1]]}" if m[1] in addresses else m[0], value)
