"""When this process began."""

import os
import time
from pathlib import Path


def seconds_since_start() -> float:
    """Return for how long the process exists."""
    return time.monotonic() - _BEGAN


def _age_s() -> float:
    """Return the process's age; where the system does not tell, 0."""
    try:
        # Fields are counted from behind the command's name, which may hold spaces. Source: proc(5).
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0


_BEGAN = time.monotonic() - _age_s()
