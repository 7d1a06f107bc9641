"""The age of this process."""

import os
import time
from pathlib import Path


def seconds_since_start() -> float:
    """Return the seconds since the process started."""
    return time.monotonic() - _BEGAN


def _age_s() -> float:
    """Return the age of the process in seconds; 0 if the system does not provide it."""
    try:
        # The fields are counted after the command's name, which may contain spaces. Source: proc(5).
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0


_BEGAN = time.monotonic() - _age_s()
