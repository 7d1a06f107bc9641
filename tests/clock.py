"""A clock that a test sets, for code that takes a clock."""


class Clock:
    """Returns `now`, which stays until the test changes it."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
