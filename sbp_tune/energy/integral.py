"""Time integral of a sampled quantity."""

from __future__ import annotations


class Integral:
    """Integral over time of samples that each hold until the next one.

    The unit is that of the samples times seconds. Holding, unlike a trapezoid, lets `until` be read between
    samples without ever falling back when the next sample is lower. For a quantity that drifts from a to b the
    error is at most (b - a) / 2 times the longest gap between samples.
    """

    def __init__(self, time: float, value: float) -> None:
        self._time = time
        self._value = value
        self._sum = 0.0

    def add(self, time: float, value: float) -> None:
        """One sample; times must not decrease."""
        self._sum = self.until(time)
        self._time = time
        self._value = value

    def until(self, time: float) -> float:
        """The integral from the first sample to `time`, which is not before the last sample."""
        return self._sum + self._value * (time - self._time)
