"""
Wake functions that scaled to zero, before they are needed.

A function that calls others wakes them as soon as its own process starts, so that all of them start in parallel. The
module imports nothing outside the standard library, because it runs before the other imports.
"""

import contextlib
import http.client
import threading
from urllib.parse import urlsplit

_LONGEST_S = 30.0


def wake(urls: str) -> list[threading.Thread]:
    """
    Send a request to each of *urls*, and return the threads that wait for the answers.

    Args:
        urls: Addresses, separated by spaces; `-` or nothing for none.
    """
    threads = [threading.Thread(target=_knock, args=(url,), daemon=True) for url in urls.removeprefix("-").split()]
    for thread in threads:
        thread.start()
    return threads


def _knock(url: str) -> None:
    """Ask the function at *url* whether it lives; a failure does not matter, because later calls report it."""
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        parts = urlsplit(url)
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        # The answer is awaited because an ingress drops the request of a caller that disconnects.
        with contextlib.closing(connect(parts.netloc, timeout=_LONGEST_S)) as connection:
            connection.request("GET", "/livez")
            connection.getresponse().read()
