"""Energies that cannot be true are errors, not results.

Published tables imply 1,034 to 1,189 W of a board that is limited to 50 W: nothing in that tool chain noticed.
"""

from __future__ import annotations

from sbp_tune.energy.counters.plausible import CHECK_PERIOD_S, POWER_MARGIN, STILL_S
from sbp_tune.errors import SbpTuneError

CROSS_CHECK_S = 60.0
CROSS_CHECK_TOLERANCE = 0.1


class PowerGate:
    """Refuses a mean power above 1.1 times a device's limit.

    device, reading: as the error names them; late_s: how late a reading may be.
    """

    def __init__(self, device: str, reading: str, limit_w: float | None, late_s: float = 0.1) -> None:
        self._device, self._reading, self._limit_w, self._late_s = device, reading, limit_w, late_s
        self._start: float | None = None
        self._joules = 0.0

    def add(self, start: float, end: float, joules: float) -> None:
        """J from `start` to `end`, s; intervals come in order. SbpTuneError names device, W and limit."""
        if self._limit_w is None:
            return
        self._start = start if self._start is None else self._start
        self._joules += joules
        seconds = end - self._start
        # A late reading may fall just inside the window: grant its energy.
        if self._joules > POWER_MARGIN * self._limit_w * (seconds + self._late_s):
            raise SbpTuneError(
                f"{self._device}: mean power {self._joules / seconds:.0f} W over {seconds:.1f} s is above its limit "
                f"of {self._limit_w:.0f} W: the {self._reading} cannot be right"
            )
        if seconds >= CHECK_PERIOD_S:
            self._start, self._joules = None, 0.0


class StillGate:
    """Refuses a GPU that works without using energy: an unsupported counter may read a constant."""

    def __init__(self, device: str, reading: str) -> None:
        self._device, self._reading = device, reading
        self._used_s = 0.0

    def add(self, used_s: float, joules: float) -> None:
        """J of an interval in which it was in use for `used_s`. SbpTuneError after 1 s of use without energy."""
        self._used_s = 0.0 if joules > 0 else self._used_s + used_s
        if self._used_s >= STILL_S:
            raise SbpTuneError(f"{self._device}: in use for {self._used_s:.1f} s, but its {self._reading} did not move")


class CrossCheck:
    """Compares a GPU's energy counter with its power readings summed over time, a minute at a time."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._seconds = self._counted = self._summed = 0.0
        self._worst = (0.0, 0.0, 0.0)

    def add(self, seconds: float, counted: float, summed: float) -> None:
        """J of one interval by the counter, and by its power."""
        self._seconds += seconds
        self._counted += counted
        self._summed += summed
        if self._seconds < CROSS_CHECK_S:
            return
        difference = abs(self._counted - self._summed) / max(self._counted, self._summed, 1e-9)
        self._worst = max(self._worst, (difference, self._counted / self._seconds, self._summed / self._seconds))
        self._seconds = self._counted = self._summed = 0.0

    def warning(self) -> str | None:
        """What to tell the user, if a minute differed by more than 10 %."""
        difference, counted, summed = self._worst
        if difference <= CROSS_CHECK_TOLERANCE:
            return None
        return f"{self._device}: for a minute its counter said {counted:.0f} W, its power readings {summed:.0f} W"
