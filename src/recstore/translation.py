"""Turn the errors of a database into those of the port."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from recstore.port import StoreError, StoreUnavailableError


class TranslatedErrors(ABC):
    """
    Raises the port's error for an error of the database; use it as a context manager.

    A class, because a context manager made with `contextmanager` costs a read 1 us.

    Args:
        place: The database, as messages name it, without credentials.

    Attributes:
        closed: Whether the database was closed.
    """

    def __init__(self, place: object) -> None:
        self.place = place
        self.closed = False

    def check_open(self) -> None:
        """Raise `StoreUnavailableError` if the database was closed."""
        if self.closed:
            raise StoreUnavailableError(f"{self.place} was closed")

    @abstractmethod
    def translate(self, error: BaseException) -> StoreError | None:
        """Return the port's error for *error*; None if *error* is not of the database."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and (translated := self.translate(error)):
            raise translated from error
