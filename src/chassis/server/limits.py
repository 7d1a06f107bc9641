"""Limits on the resources that callers may use, and on file descriptors."""

import logging
import resource
from dataclasses import dataclass, replace

_LOG_EVERY_S = 10.0
# Linux allows up to 2**20 by default, more than a server of this project can use.
_MOST_DESCRIPTORS = 65_536

log = logging.getLogger("chassis")


@dataclass(frozen=True)
class ServerLimits:
    """
    The resources that callers may use.

    Attributes:
        connections: Open connections; further ones get 503.
        head_bytes: Length of a request line and its headers, or of trailers.
        headers: Number of headers. Envoy accepts 100 and adds its own.
        head_s: Time from the first byte of a head to its last.
        body_s: Time from the end of a head to the end of its body.
        send_s: Time that an answer may wait for its caller to read.
        waiting_bytes: Bytes of further requests that are kept while requests wait.
    """

    connections: int = 8192
    head_bytes: int = 64 * 1024
    headers: int = 128
    head_s: float = 10.0
    body_s: float = 60.0
    send_s: float = 30.0
    waiting_bytes: int = 64 * 1024

    def fit(self, descriptors: int) -> "ServerLimits":
        """
        Return these limits with at most one connection for two *descriptors*, and log if those are fewer.

        The other half is left to files and to the connections that the process opens itself.
        """
        possible = max(1, descriptors // 2)
        if possible >= self.connections:
            return self
        log.warning("few_descriptors", extra={"descriptors": descriptors, "connections": possible})
        return replace(self, connections=possible)


class Refusals:
    """Logs refused connections, at most every ten seconds."""

    def __init__(self) -> None:
        self._count = 0
        self._logged_at = -_LOG_EVERY_S

    def note(self, *, now: float, limit: int) -> None:
        """Count a connection refused at *now* because *limit* connections are open, and log the count when due."""
        self._count += 1
        if now - self._logged_at >= _LOG_EVERY_S:
            log.warning("too_many_connections", extra={"limit": limit, "refused": self._count})
            self._count, self._logged_at = 0, now


def raise_descriptor_limit() -> int:
    """Raise the soft limit of file descriptors towards the hard limit, and return the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        # macOS refuses more than kern.maxfilesperproc, even below the hard limit.
        return soft
    return wanted
