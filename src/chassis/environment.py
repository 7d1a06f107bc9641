"""
Read configuration from environment variables, and report all faults together.

Each function declares a frozen `Settings` with a `from_env(mapping)`. `from_env` uses a `Reader`, which collects faults
instead of stopping at the first.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

T = TypeVar("T", int, float)


class SettingsError(Exception):
    """The configuration is wrong; `faults` has one message for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class Reader:
    """
    Reads typed variables from a mapping, and collects their faults.

    Args:
        env: The variables; those of this process by default.

    Attributes:
        faults: One message for each fault so far.
        names: The variables read so far. A test compares them with the manifests.
    """

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        self._env = env
        self.faults: list[str] = []
        self.names: list[str] = []

    def text(self, name: str, default: str | None = None) -> str:
        """Return the variable, or *default* if it is unset or empty. Without *default*, that is a fault."""
        self.names.append(name)
        value = self._env.get(name) or default
        if value is None:
            self.faults.append(f"{name} is not set")
            return ""
        return value

    def optional(self, name: str) -> str | None:
        """Return the variable, or None if it is unset, empty or `-`."""
        value = self.text(name, "-")
        return None if value == "-" else value

    def path(self, name: str) -> Path | None:
        """Return the variable as a path; None as for `optional`."""
        value = self.optional(name)
        return None if value is None else Path(value)

    def http_url(self, name: str, default: str | None = None) -> str:
        """Return the variable, an http or https URL, or *default* as `text` does."""
        value = self.text(name, default)
        self.require(value in {"", default} or is_http_url(value), f"{name} must be a http(s) URL, not {value!r}")
        return value

    def secret(self, name: str) -> str | None:
        """Return the variable, or None if it is unset or empty. No message contains its value."""
        self.names.append(name)
        return self._env.get(name) or None

    def integer(self, name: str, default: int, *, least: int = 0, most: int = 2**31) -> int:
        """Return the variable as an integer from *least* to *most*."""
        return self._number(name, default, int, least, most)

    def number(self, name: str, default: float, *, least: float = 0.0, most: float = math.inf) -> float:
        """Return the variable as a finite number from *least* to *most*."""
        return self._number(name, default, float, least, most)

    def flag(self, name: str, *, default: bool) -> bool:
        """Return the variable as a boolean: 1, true and on, or 0, false and off."""
        self.names.append(name)
        value = self._env.get(name, "").lower()
        if value not in {"", "1", "true", "on", "0", "false", "off"}:
            self.faults.append(f"{name} must be 1 or 0, not {value!r}")
        return value in {"1", "true", "on"} if value else default

    def require(self, condition: bool, fault: str) -> None:  # noqa: FBT001 - reads as a sentence at the call
        """Add *fault* unless *condition* holds, for rules that concern several variables."""
        if not condition:
            self.faults.append(fault)

    def finish(self) -> None:
        """
        Raise an error if any fault was found.

        Raises:
            SettingsError: at least one variable is wrong.
        """
        if self.faults:
            raise SettingsError(self.faults)

    def _number(self, name: str, default: T, kind: type[T], least: T, most: T) -> T:
        self.names.append(name)
        text = self._env.get(name)
        if not text:
            return default
        try:
            value = kind(text)
        except ValueError:
            self.faults.append(f"{name} must be {'an integer' if kind is int else 'a number'}, not {text!r}")
            return default
        if not math.isfinite(value) or not least <= value <= most:
            self.faults.append(f"{name} must be within {least} and {most}, not {text}")
            return default
        return value


def is_http_url(text: str) -> bool:
    """Tell whether *text* is an absolute http or https URL."""
    try:
        url = urlsplit(text)
        # Reading the port checks it.
        has_address = bool(url.hostname) and url.port != 0
    except ValueError:
        return False
    return url.scheme in {"http", "https"} and has_address and text.isprintable() and " " not in text
