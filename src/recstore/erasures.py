"""
Erasures: the users whose data a store must not take back.

A store keeps an erasure for ever, because an event may be delivered late by any time. An erasure holds a digest, so the
user's id is not kept. A readmission replaces it: from then on, the store accepts events about later actions.
"""

import hashlib
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import astuple


class Erasure(Struct, frozen=True):
    """
    The newest erasure or readmission of a user.

    Attributes:
        user: SHA-256 of the user id, hexadecimal.
        at_us: Time of it, microseconds since the epoch.
        readmitted: Whether the user may come back; then events about actions before *at_us* are still refused.
    """

    user: str
    at_us: int
    readmitted: bool = False

    def refuses(self, time_us: int) -> bool:
        """Tell whether an interaction of the user at *time_us* must not be counted."""
        return not self.readmitted or time_us < self.at_us


class Removed(Struct, frozen=True):
    """
    The numbers of what an erasure removed from a store.

    Attributes:
        users: Users with their profile and counters.
        items: Items of their histories.
        events: Marks that recognise repeated events.
        exposures: Answers of recommend in the exposure log.
        actions: Actions in the exposure log.
    """

    users: int = 0
    items: int = 0
    events: int = 0
    exposures: int = 0
    actions: int = 0

    def __add__(self, other: "Removed") -> "Removed":
        return Removed(*(own + more for own, more in zip(astuple(self), astuple(other), strict=True)))


def digest_user(user_id: str) -> str:
    """Return the digest by which stores know an erased user: SHA-256 of *user_id*, hexadecimal."""
    return hash_user(user_id).hex()


def hash_user(user_id: str) -> bytes:
    """Return the 32 bytes of `digest_user`."""
    return hashlib.sha256(user_id.encode()).digest()


def fingerprint(erasures: Iterable[Erasure]) -> str:
    """Return a text that differs between different sets of erased users; "" if no user is erased."""
    erased = sorted(list_erased(erasures))
    return hashlib.sha256("".join(erased).encode()).hexdigest() if erased else ""


def list_erased(erasures: Iterable[Erasure]) -> set[str]:
    """Return the digests of the users who are erased now."""
    return {each.user for each in erasures if not each.readmitted}
