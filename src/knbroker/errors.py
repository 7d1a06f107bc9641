"""The errors of the broker."""


class RefusedEventError(Exception):
    """An event that the broker does not take; *status* is for its sender."""

    def __init__(self, text: str, *, status: int = 400) -> None:
        super().__init__(text)
        self.status = status
