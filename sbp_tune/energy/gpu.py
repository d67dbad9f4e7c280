"""Energy of one GPU: its counter, else its power summed over time, else nothing; implausible is an error."""

from __future__ import annotations

from sbp_tune.energy.integral import Integral
from sbp_tune.energy.nvml import Nvml
from sbp_tune.energy.reading import Source
from sbp_tune.errors import SbpTuneError

# NVML updates counter and power about every 100 ms (10 to 100 ms by model).
UPDATE_PERIOD_S = 0.1

# Against an external meter, boards read 0.4 to 13 % wrong (arXiv 2312.02741), constant for one board.
COUNTER_UNCERTAINTY = 0.1
# The power of some models covers only a quarter of the time (same source); no figure for it: an assumption.
INTEGRATED_UNCERTAINTY = 0.15

POWER_MARGIN = 1.1
STILL_S = 1.0


def energy_source(uuid: str, nvml: Nvml) -> Source:
    """The best source of a GPU's energy: `counter`, `integrated`, or `none`.

    None for a MIG instance (it shows its parent's counter), for a GPU that reports neither energy nor power, and
    where NVML does not answer; SbpTuneError for a GPU that is not on this machine.
    """
    if nvml.reason is not None or nvml.mig(uuid):
        return "none"
    if nvml.total_energy_j(uuid) is not None:
        return "counter"
    return "none" if nvml.power_w(uuid) is None else "integrated"


class GpuEnergy:
    """Joules of one GPU since construction; not thread-safe.

    source: as `energy_source` says; `integrated` needs `sample` every UPDATE_PERIOD_S. SbpTuneError for
    readings that cannot be true.
    """

    def __init__(self, uuid: str, nvml: Nvml, now: float) -> None:
        self.uuid = uuid
        self.source = energy_source(uuid, nvml)
        self._nvml = nvml
        self._start = self._moved = now
        self._joules = 0.0
        if self.source == "none":
            return
        self._limit_w = nvml.power_limit_w(uuid)
        if self.source == "counter":
            self._counter_start = self._counter()
        else:
            self._power = Integral(now, self._power_w())

    def sample(self, now: float) -> None:
        """Takes one power reading, if that is the source."""
        if self.source == "integrated":
            self._power.add(now, self._power_w())

    def joules(self, now: float) -> float | None:
        """Energy since the start, J; None if the source is `none`."""
        if self.source == "none":
            return None
        joules = self._counter() - self._counter_start if self.source == "counter" else self._power.until(now)
        self._check(joules, now)
        return joules

    def utilization(self) -> float | None:
        """Part of the time in which a kernel ran, 0 to 1; None where that cannot be read, as on MIG."""
        return None if self.source == "none" else self._nvml.utilization(self.uuid)

    def uncertainty(self, now: float) -> float | None:
        """Relative uncertainty: of the board, and of one update of the counter at the edges of the window."""
        if self.source == "none":
            return None
        board = COUNTER_UNCERTAINTY if self.source == "counter" else INTEGRATED_UNCERTAINTY
        return min(1.0, board + UPDATE_PERIOD_S / max(now - self._start, UPDATE_PERIOD_S))

    def _counter(self) -> float:
        return self._still_there(self._nvml.total_energy_j(self.uuid))

    def _power_w(self) -> float:
        return self._still_there(self._nvml.power_w(self.uuid))

    def _still_there(self, value: float | None) -> float:
        if value is None:
            raise SbpTuneError(f"GPU {self.uuid}: its energy can no longer be read")
        return value

    def _check(self, joules: float, now: float) -> None:
        what = "energy counter" if self.source == "counter" else "power reading"
        if joules < self._joules:
            raise SbpTuneError(f"GPU {self.uuid}: {what} went backwards: was the driver reloaded?")
        if joules > self._joules:
            self._moved = now
        elif now - self._moved >= STILL_S:  # even an idle GPU draws watts, so no load has to be proven
            raise SbpTuneError(f"GPU {self.uuid}: {what} did not move for {now - self._moved:.1f} s")
        self._joules = joules
        seconds = now - self._start
        # One update of the counter may fall just inside the window: grant its energy.
        if self._limit_w and joules > POWER_MARGIN * self._limit_w * (seconds + UPDATE_PERIOD_S):
            raise SbpTuneError(
                f"GPU {self.uuid}: mean power {joules / max(seconds, UPDATE_PERIOD_S):.0f} W over {seconds:.1f} s is "
                f"above its limit of {self._limit_w:.0f} W: the {what} cannot be right"
            )
