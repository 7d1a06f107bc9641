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

RESOLVER = Path("/etc/resolv.conf")

_LONGEST_S = 30.0
_BARE_HOST = re.compile(r"https?://(?!localhost\b)[a-z0-9-]+(?=[:/?#]|$)")
# The kubelet puts NAMESPACE.svc.DOMAIN first into the search list of a pod.
_NAMESPACE = re.compile(r"^search\s(?:.*?\s)??([a-z0-9-]+)\.svc\.", re.MULTILINE)


def wake(env: Mapping[str, str]) -> list[threading.Thread]:
    """
    Send a request to each address in WAKE_URLS, and return the threads that wait for the answers.

    Args:
        env: The environment. WAKE_URLS holds addresses, separated by spaces; `-` or nothing for none.
    """
    urls = [complete_url(url) for url in env.get("WAKE_URLS", "").removeprefix("-").split()]
    threads = [threading.Thread(target=_knock, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    return threads


def complete_url(url: str) -> str:
    """
    Add the namespace of the pod to a host that is the bare name of a Service.

    The gateway does not know a Service by its bare name. A volume with the namespace would delay the start of every
    pod by 0.2 s, so the search list of the resolver tells it; where that names no namespace, the URL stays as it is.
    """
    bare = _BARE_HOST.match(url)
    if bare is None:
        return url
    with contextlib.suppress(OSError, ValueError):
        if named := _NAMESPACE.search(RESOLVER.read_text("utf-8")):
            return f"{bare[0]}.{named[1]}.svc{url[bare.end() :]}"
    return url


def _knock(url: str) -> None:
    """Ask the function at *url* whether it lives; a failure does not matter, because later calls report it."""
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        parts = urlsplit(url)
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        # The answer is awaited because an ingress drops the request of a caller that disconnects.
        with contextlib.closing(connect(parts.netloc, timeout=_LONGEST_S)) as connection:
            connection.request("GET", "/livez")
            connection.getresponse().read()
