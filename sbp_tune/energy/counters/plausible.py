"""Readings that cannot be true: a counter that went backwards, one that stands still, more power than there is."""

from __future__ import annotations

from collections.abc import Callable

from sbp_tune.errors import SbpTuneError

POWER_MARGIN = 1.1
STILL_S = 1.0
# A meter that runs for days must not average a wild minute away; ten seconds forgive a counter that moves in steps.
CHECK_PERIOD_S = 10.0


class Plausible:
    """Checks the joules of one device as they are read.

    device, what: for the error's text, as in 'GPU x: energy counter did not move'; limit_w: most power of the
    device, None where it is not known; late_s: how late a reading may be; limit_again: reads the limit once more
    before power above it is an error, since it may have been raised meanwhile.
    """

    def __init__(
        self,
        device: str,
        what: str,
        now: float,
        limit_w: float | None = None,
        late_s: float = 0.0,
        limit_again: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._device, self._what = device, what
        self._limit_w, self._late_s, self._limit_again = limit_w, late_s, limit_again
        self._joules = 0.0
        self._moved = now
        self._checked = (now, 0.0)

    def check(self, joules: float, now: float) -> float:
        """The joules since the start, if they can be true; else SbpTuneError."""
        if joules < self._joules:
            raise SbpTuneError(f"{self._device}: {self._what} went backwards: was the driver reloaded?")
        if joules > self._joules:
            self._moved = now
        elif now - self._moved >= STILL_S:  # even an idle device draws watts, so no load has to be proven
            raise SbpTuneError(f"{self._device}: {self._what} did not move for {now - self._moved:.1f} s")
        self._joules = joules
        since, before = self._checked
        self._check_power(joules - before, now - since)
        if now - since >= CHECK_PERIOD_S:
            self._checked = (now, joules)
        return joules

    def _check_power(self, joules: float, seconds: float) -> None:
        if not self._limit_w or joules <= self._most(self._limit_w, seconds):
            return
        self._limit_w = max(self._limit_w, self._limit_again() or 0.0)
        if joules > self._most(self._limit_w, seconds):
            raise SbpTuneError(
                f"{self._device}: mean power {joules / max(seconds, 0.1):.0f} W over {seconds:.1f} s is "
                f"above its limit of {self._limit_w:.0f} W: the {self._what} cannot be right"
            )

    def _most(self, limit_w: float, seconds: float) -> float:
        """Joules at the limit, with those of one late reading that may fall just inside the window."""
        return POWER_MARGIN * limit_w * (seconds + self._late_s)
