"""What a batch is going to cost, learnt from those before it."""

_MEMORY = 0.8
# Below this spread of sizes a line through the batches seen says nothing about other sizes.
_LEAST_VARIANCE = 0.25


class BatchCosts:
    """
    Expected seconds of a batch of n: a + b*n, fitted to recent batches, the newest weighing most.

    A fixed part is common (a model that reads the whole catalogue per batch), so the cost of one item out of a full
    batch says little about a batch of one.
    """

    def __init__(self) -> None:
        self._size = self._seconds = self._variance = self._covariance = 0.0
        self._seen = False

    def note(self, size: int, seconds: float) -> None:
        """Learn from a batch that ran."""
        if not self._seen:
            self._size, self._seconds, self._seen = float(size), seconds, True
            return
        # West 1979: exponentially weighted mean, variance and covariance, one pass.
        share = 1.0 - _MEMORY
        size_gap, seconds_gap = size - self._size, seconds - self._seconds
        self._size += share * size_gap
        self._seconds += share * seconds_gap
        self._variance = _MEMORY * (self._variance + share * size_gap * size_gap)
        self._covariance = _MEMORY * (self._covariance + share * size_gap * seconds_gap)

    def expect(self, size: int) -> float:
        """Return the expected seconds of a batch of *size*; 0 before any ran."""
        if not self._seen:
            return 0.0
        if self._variance < _LEAST_VARIANCE:
            return self._seconds * max(1.0, size / self._size)
        # A batch gets neither cheaper by one more item, nor dearer per item.
        slope = min(max(self._covariance / self._variance, 0.0), self._seconds / self._size)
        return self._seconds + slope * (size - self._size)
