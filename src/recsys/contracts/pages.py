"""The pages that a function serves beside its door. They are made at the first request, so that no start pays for them."""

from collections.abc import Callable, Mapping
from functools import cache

from chassis.call import Reply

OPENAPI = "/openapi.json"


def pages_of(name: str) -> Mapping[str, Callable[[], Reply]]:
    """Return the pages of the function *name*, by path."""

    @cache
    def openapi() -> Reply:
        from recsys.contracts.openapi import document  # noqa: PLC0415 - only this page needs the types of all functions

        return Reply(document(name))

    return {OPENAPI: openapi}
