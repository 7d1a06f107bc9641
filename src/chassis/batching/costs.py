"""Expected cost of a batch, learnt from earlier batches."""

_MEMORY = 0.8
# Below this variance of the sizes, a line through the batches predicts nothing for other sizes.
_LEAST_VARIANCE = 0.25


class BatchCosts:
    """
    Expected seconds of a batch of n items: a + b*n, fitted to recent batches, the newest with the largest weight.

    The fixed part a is often large, for example if a model reads the whole catalogue for each batch. Dividing the cost
    of a full batch by its size therefore underestimates a batch of one.
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
        """Return the expected seconds of a batch of *size*; 0 before the first batch."""
        if not self._seen:
            return 0.0
        if self._variance < _LEAST_VARIANCE:
            return self._seconds * max(1.0, size / self._size)
        # One more item never makes a batch cheaper, and never raises the cost per item.
        slope = min(max(self._covariance / self._variance, 0.0), self._seconds / self._size)
        return self._seconds + slope * (size - self._size)
