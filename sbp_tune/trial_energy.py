"""Energy and time of one run, summed over its epochs and over its attempts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sbp_tune.config import EnergyConfig
from sbp_tune.energy import EnergyMeter
from sbp_tune.energy.carbon import co2_kg

_COMPONENTS = ("gpu", "cpu", "ram")


class TrialEnergy:
    """Meters epochs: training and validation, without set-up, checkpoints and what Ray does between.

    A component that could not be read in some epoch has no sum: it is None from then on, never 0.
    """

    def __init__(
        self, config: EnergyConfig, gpus: Sequence[str], cpus: int | None, synchronize: Callable[[], None]
    ) -> None:
        self._config, self._gpus, self._cpus, self._synchronize = config, gpus, cpus, synchronize
        self._sums: dict[str, float | None] = dict.fromkeys(("kwh", "measured", "seconds"), 0.0)
        self._sources: dict[str, str] = {}
        self._epoch_seconds = 0.0

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """Meters the block and adds it to the sums; a block that raises is not an epoch and not added."""
        self._synchronize()  # work queued before must not be billed here, nor ours later
        meter = EnergyMeter.from_config(self._config, gpus=self._gpus, cpus=self._cpus)
        start = time.perf_counter()
        with meter:
            yield
            self._synchronize()
        self._epoch_seconds = time.perf_counter() - start
        reading = meter.read()
        self._add("kwh", reading.kwh)
        self._add("measured", reading.kwh * reading.measured_share)
        self._add("seconds", self._epoch_seconds)
        for name in _COMPONENTS:
            if component := reading.components.get(name):
                self._add(name, component.kwh)
                self._sources[name] = component.source

    def row(self) -> dict[str, float | str | None]:
        """Columns of the results table; kWh and kg of all epochs so far, W and seconds, and the sources."""
        kwh, measured, seconds = (self._sums[name] or 0.0 for name in ("kwh", "measured", "seconds"))
        country = self._config.country
        return {
            "kwh": kwh,
            **{f"kwh_{name}": self._sums.get(name) for name in _COMPONENTS},
            **{f"kwh_{name}_source": self._sources.get(name) for name in _COMPONENTS},
            "kwh_measured_share": measured / kwh if kwh else None,
            "co2_kg": co2_kg(kwh, country, self._config.pue) if country else None,
            "mean_power_w": kwh * 3.6e6 / seconds if seconds else None,
            "train_time_s": seconds,
            "epoch_time_s": self._epoch_seconds,
        }

    def state_dict(self) -> dict[str, float | None]:
        return dict(self._sums)

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        self._sums = dict(state)

    def _add(self, name: str, value: float | None) -> None:
        present = self._sums.setdefault(name, 0.0)
        self._sums[name] = None if value is None or present is None else present + value
