"""
The aggregation windows of Knative's autoscaler.

Source: knative/serving pkg/autoscaler/aggregation (bucketing.go, max/window.go). Arithmetic is done in the
same order as there, so that averages agree to the last bit and a ceiling never falls on the other side.
"""

import math
from collections import deque

_DIGITS = 10.0**6
_MIN_COEFFICIENT = 0.2
_WEIGHT_PRECISION = 0.9999


class LinearWindow:
    """
    One bucket a second over a window of whole seconds; the average gives every bucket the same weight.

    Until a window has been filled, and after data stopped coming, the average is over the part that has data.
    A gap between two writes counts as zeros.
    """

    def __init__(self, seconds: int) -> None:
        self._buckets = [0.0] * seconds
        self._first = math.inf
        self._last = -math.inf
        self._total = 0.0

    def record(self, second: int, value: float) -> None:
        """Add *value* to the bucket of *second*; a value a window older than the newest is dropped."""
        size = len(self._buckets)
        if second != self._last:
            if second + size <= self._last:
                return
            self._first = min(self._first, second)
            if second > self._last:
                self._advance(second)
        self._buckets[second % size] += value
        self._total += value

    def is_empty(self, second: int) -> bool:
        """Tell whether nothing was recorded within the window that ends at *second*."""
        return second - self._last > len(self._buckets)

    def average(self, second: int) -> float:
        """Average at *second*, rounded to six digits; 0 if the window holds nothing."""
        size = len(self._buckets)
        behind = max(0, second - self._last)
        if behind >= size:
            return 0.0
        last, aged = int(self._last), int(behind)
        total = self._total
        for fallen_out in range(last + 1, last + aged + 1):
            total -= self._buckets[fallen_out % size]
        return _round(total / min(self._last - self._first + 1, size - aged))

    def _advance(self, second: int) -> None:
        size = len(self._buckets)
        if second - self._last >= size:
            self._first = second
            self._buckets = [0.0] * size
            self._total = 0.0
        else:
            for skipped in range(int(self._last) + 1, second + 1):
                self._total -= self._buckets[skipped % size]
                self._buckets[skipped % size] = 0.0
        self._last = second


class WeightedWindow(LinearWindow):
    """The same buckets, averaged with exponentially decaying weights that are not normalised."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self._coefficient = max(1 - math.pow(1 - _WEIGHT_PRECISION, 1 / seconds), _MIN_COEFFICIENT)

    def average(self, second: int) -> float:
        """Weighted sum at *second*; seconds since the last write count as zeros."""
        if self.is_empty(second):
            return 0.0
        size, last = len(self._buckets), int(self._last)
        aged = max(0, second - last)
        weight = self._coefficient * math.pow(1 - self._coefficient, aged)
        result = 0.0
        for age in range(size - aged):
            result += self._buckets[(last - age) % size] * weight
            weight *= 1 - self._coefficient
        return result


class MaximumWindow:
    """The largest of the values recorded under the last *size* indices."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._maxima: deque[tuple[int, int]] = deque()

    def record(self, index: int, value: int) -> int:
        """Record *value* under *index*, which never falls, and return the maximum."""
        while self._maxima and value >= self._maxima[-1][1]:
            self._maxima.pop()
        while self._maxima and index - self._maxima[0][0] >= self._size:
            self._maxima.popleft()
        # A smaller value under the index of the last one cannot become the maximum before that one leaves.
        if not self._maxima or self._maxima[-1][0] != index:
            self._maxima.append((index, value))
        return self._maxima[0][1]


def _round(value: float) -> float:
    """Go's math.Round at six digits: halves away from zero, where Python's round goes to even."""
    scaled = value * _DIGITS
    whole = math.trunc(scaled)
    if abs(scaled - whole) >= 0.5:
        whole += int(math.copysign(1, scaled))
    return whole / _DIGITS
