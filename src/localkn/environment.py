"""What of this machine an instance sees, and what becomes of the cluster's names in its environment."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

# What a command needs of the machine it runs on. Nothing else of the caller's environment gets through, so that
# a pipeline behaves alike in every shell, as it would in its image.
_INHERITED = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|TERM|VIRTUAL_ENV|PYTHON\w+|LD_LIBRARY_PATH|DYLD_\w+|SSL_CERT_\w+"
)
_SERVICE_URL = re.compile(r"http://([a-z0-9.-]+)(?::80)?(?=[/?#,;\s\"']|$)")


def inherited() -> dict[str, str]:
    """The part of this process's environment that instances see."""
    return {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name)}


def localised(value: str, *, addresses: Mapping[str, int], places: Mapping[str, Path]) -> str:
    """
    Rewrite what a value says about the cluster: URLs of Services, and a mountPath at its start.

    Args:
        value: Of an environment variable or an argument.
        addresses: Host name of each Service to its port on this machine.
        places: mountPath to the directory that stands for it.
    """
    for mount, place in places.items():
        if value == mount or value.startswith(mount.rstrip("/") + "/"):
            return str(place) + value[len(mount.rstrip("/")) :]
    return _SERVICE_URL.sub(lambda m: f"http://127.0.0.1:{addresses[m[1]]}" if m[1] in addresses else m[0], value)
