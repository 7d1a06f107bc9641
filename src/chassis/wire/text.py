"""The characters that no text of a caller may contain."""

import re
from typing import Final

_CONTROLS = "\x00-\x1f\x7f-\x9f"
_SURROGATES = "\ud800-\udfff"
_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
# An id becomes an attribute of an event, where CloudEvents forbids these characters (CloudEvents 1.0.2, "Type System",
# String).
NOT_TEXT: Final = re.compile(f"[{_CONTROLS}{_SURROGATES}{_NONCHARACTERS}]")
FORBIDDEN: Final = {
    "control characters": re.compile(f"[{_CONTROLS}]"),
    "noncharacters": re.compile(f"[{_NONCHARACTERS}]"),
}
# JSON contains these characters as escapes or as these bytes of UTF-8.
_ESCAPE, _DELETE = b"\\", b"\x7f"
_SUSPECT = re.compile(rb"\xc2[\x80-\x9f]|\xef\xb7[\x90-\xaf]|\xbf[\xbe\xbf]")


def is_suspect(body: bytes) -> bool:
    """
    Tell whether the JSON *body* may contain a forbidden character.

    A few allowed characters end in the same bytes as a forbidden one, so the answer may be True for a valid body.
    """
    if _ESCAPE in body:
        # A backslash and a quote are allowed.
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    return _ESCAPE in body or _DELETE in body or (not body.isascii() and _SUSPECT.search(body) is not None)


def shown(name: str) -> str:
    """Return a caller's *name* for a message: cut to 64 characters, in printable ASCII, others and backslashes escaped."""
    return name[:64].encode("unicode_escape").decode()
