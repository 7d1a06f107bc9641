"""The body of a request: a customer's message."""

from typing import Annotated

from msgspec import Meta, Struct

from chassis import Decoder


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    """A customer's message."""

    text: Annotated[str, Meta(min_length=1, max_length=4000)]


message = Decoder(Message)
