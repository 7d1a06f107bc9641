"""The token and the certificates of requests to a deployment."""

import ssl
import time
from pathlib import Path

from chassis.auth.tokens import parse_tokens


def read_token(path: Path | None) -> str | None:
    """
    Return the first token in the file at *path* that has not expired; None without a file.

    Raises:
        OSError, ValueError: the file cannot be read, or has no such token.
    """
    if path is None:
        return None
    for token in parse_tokens(path.read_text()).tokens:
        if token.expires is None or token.expires > time.time():
            return token.text
    raise ValueError(f"{path}: has no valid token; write one on the first line")


def read_authorities(path: Path | None) -> ssl.SSLContext | None:
    """Return a context that trusts the certificate authorities in the file at *path*; None without a file."""
    return ssl.create_default_context(cafile=path) if path else None
