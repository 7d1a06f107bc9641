"""
Wake functions that scaled to zero, before they are needed.

A function that calls others wakes them as soon as its own process starts, so that all of them start in parallel. The
module imports nothing outside the standard library, because it runs before the other imports.
"""

import contextlib
import http.client
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

_LONGEST_S = 30.0
_BARE_HOST = re.compile(r"https?://(?!localhost\b)[a-z0-9-]+(?=[:/?#]|$)")


def wake(env: Mapping[str, str]) -> list[threading.Thread]:
    """
    Send a request to each address in WAKE_URLS, and return the threads that wait for the answers.

    Args:
        env: The environment. WAKE_URLS holds addresses, separated by spaces; `-` or nothing for none. NAMESPACE_FILE
            names the file with the namespace of the pod.
    """
    urls = env.get("WAKE_URLS", "").removeprefix("-").split()
    namespace = _read_namespace(env.get("NAMESPACE_FILE", "-")) if urls else None
    threads = [threading.Thread(target=_knock, args=(complete_url(url, namespace),), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    return threads


def complete_url(url: str, namespace: str | None) -> str:
    """Add *namespace* to a host that is the bare name of a Service: the gateway does not know a Service by that alone."""
    bare = _BARE_HOST.match(url)
    return f"{bare[0]}.{namespace}.svc{url[bare.end() :]}" if bare and namespace else url


def _read_namespace(file: str) -> str | None:
    """Return the namespace; None if the file cannot be read, which the settings report later."""
    with contextlib.suppress(OSError, ValueError):
        return Path(file).read_text("utf-8").strip()
    return None


def _knock(url: str) -> None:
    """Ask the function at *url* whether it lives; a failure does not matter, because later calls report it."""
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        parts = urlsplit(url)
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        # The answer is awaited because an ingress drops the request of a caller that disconnects.
        with contextlib.closing(connect(parts.netloc, timeout=_LONGEST_S)) as connection:
            connection.request("GET", "/livez")
            connection.getresponse().read()
