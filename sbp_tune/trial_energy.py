"""Energy and time of one run, over its epochs and over its attempts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from sbp_tune.config import EnergyConfig
from sbp_tune.energy import Reading
from sbp_tune.energy.carbon import co2_kg
from sbp_tune.energy.records import Reason

_COMPONENTS = ("gpu", "cpu", "ram")


class RunMeter(Protocol):
    """Meters one run: on its own (`EnergyMeter`), or by the one meter of a node that several share (`NodeLease`)."""

    def start(self, epoch: int) -> None:
        """Begins, with a run that has finished so many epochs in earlier attempts."""

    def mark(self, epoch: int) -> Reading:
        """So many epochs have ended; the energy since `start`."""

    def stop(self, reason: Reason) -> Reading:
        """Ends; the energy since `start`."""


class TrialEnergy:
    """Meters a run from its first epoch on: training, validation, and what lies between its epochs.

    Setting up comes before. A component that could not be read in some attempt has no sum: it is None from then
    on, never 0.
    """

    def __init__(self, config: EnergyConfig, meter: RunMeter, synchronize: Callable[[], None]) -> None:
        self._config, self._meter, self._synchronize = config, meter, synchronize
        self._metering = False
        self._earlier: dict[str, float | None] = {}  # sums of the attempts that this one continues
        self._sums: dict[str, float | None] = {}
        self._sources: dict[str, str] = {}
        self._epoch_seconds = 0.0

    @contextmanager
    def epoch(self, number: int) -> Iterator[None]:
        """Meters the block, after which `number` epochs have ended; a block that raises is not an epoch."""
        self._synchronize()  # work queued before must not be billed here, nor ours later
        if not self._metering:
            self._meter.start(number - 1)
            self._metering = True
        start = time.perf_counter()
        yield
        self._synchronize()
        reading = self._meter.mark(number)
        self._epoch_seconds = time.perf_counter() - start
        self._add_up(reading)

    def stop(self, reason: Reason) -> None:
        """Ends the metering, and adds what came since the last epoch; calling it again changes nothing."""
        if self._metering:
            self._metering = False
            self._add_up(self._meter.stop(reason))

    def row(self) -> dict[str, float | str | None]:
        """Columns of the results table; kWh and kg of all epochs so far, W and seconds, and the sources."""
        kwh, measured, seconds = (self._sums.get(name, 0.0) for name in ("kwh", "measured", "seconds"))
        busy = self._sums.get("gpu_busy")
        return {
            "kwh": kwh,
            **{f"kwh_{name}": self._sums.get(name) for name in _COMPONENTS},
            **{f"kwh_{name}_source": self._sources.get(name) for name in _COMPONENTS},
            "kwh_measured_share": measured / kwh if kwh and measured is not None else None,
            "co2_kg": None if kwh is None else self._co2_kg(kwh),
            "mean_power_w": kwh * 3.6e6 / seconds if kwh is not None and seconds else None,
            "train_time_s": seconds,
            "epoch_time_s": self._epoch_seconds,
            "gpu_util": busy / seconds if busy is not None and seconds else None,
        }

    def state_dict(self) -> dict[str, float | None]:
        return dict(self._sums)

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        self._earlier, self._sums = dict(state), dict(state)

    def _add_up(self, reading: Reading) -> None:
        # A sum without the GPU would pass for a cheap run: with one part unread there is no total.
        whole = all(component.kwh is not None for component in reading.components.values())
        now: dict[str, float | None] = {
            "seconds": reading.seconds,
            "kwh": reading.kwh if whole else None,
            "measured": reading.kwh * reading.measured_share if whole else None,
            "gpu_busy": reading.gpu_busy_seconds,
            **{name: component.kwh for name, component in reading.components.items()},
        }
        self._sums = {name: _plus(self._earlier.get(name, 0.0), value) for name, value in now.items()}
        self._sources = {name: component.source for name, component in reading.components.items()}

    def _co2_kg(self, kwh: float) -> float | None:
        return co2_kg(kwh, pue=self._config.pue, **self._config.place) if self._config.has_place else None


def _plus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
