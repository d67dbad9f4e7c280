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
        self._config, self._synchronize = config, synchronize
        self._meter = EnergyMeter.from_config(config, gpus=gpus, cpus=cpus)
        self._metering = False
        self._sums: dict[str, float | None] = dict.fromkeys(("kwh", "measured", "seconds"), 0.0)
        self._sources: dict[str, str] = {}
        self._epoch_seconds = 0.0

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """Meters the block and adds it to the sums; a block that raises is not an epoch and not added."""
        self._synchronize()  # work queued before must not be billed here, nor ours later
        if not self._metering:
            self._meter.start()
            self._metering = True
        before, start = self._meter.read(), time.perf_counter()
        yield
        self._synchronize()
        after, self._epoch_seconds = self._meter.read(), time.perf_counter() - start
        self._add("seconds", self._epoch_seconds)
        # A sum without the GPU would pass for a cheap run: with one part unread there is no total.
        whole = all(component.kwh is not None for component in after.components.values())
        measured = after.kwh * after.measured_share - before.kwh * before.measured_share
        self._add("kwh", after.kwh - before.kwh if whole else None)
        self._add("measured", measured if whole else None)
        busy = None if after.gpu_busy_seconds is None else after.gpu_busy_seconds - (before.gpu_busy_seconds or 0.0)
        self._add("gpu_busy", busy)
        for name, component in after.components.items():
            self._sources[name] = component.source
            earlier = before.components[name].kwh
            self._add(name, None if component.kwh is None or earlier is None else component.kwh - earlier)

    def close(self) -> None:
        """Ends the meter's background threads."""
        if self._metering:
            self._meter.stop()

    def row(self) -> dict[str, float | str | None]:
        """Columns of the results table; kWh and kg of all epochs so far, W and seconds, and the sources."""
        kwh, measured, seconds = (self._sums[name] for name in ("kwh", "measured", "seconds"))
        place, busy = self._config.place, self._sums.get("gpu_busy")
        return {
            "kwh": kwh,
            **{f"kwh_{name}": self._sums.get(name) for name in _COMPONENTS},
            **{f"kwh_{name}_source": self._sources.get(name) for name in _COMPONENTS},
            "kwh_measured_share": measured / kwh if kwh and measured is not None else None,
            "co2_kg": co2_kg(kwh, pue=self._config.pue, **place)
            if self._config.has_place and kwh is not None
            else None,
            "mean_power_w": kwh * 3.6e6 / seconds if kwh is not None and seconds else None,
            "train_time_s": seconds,
            "epoch_time_s": self._epoch_seconds,
            "gpu_util": busy / seconds if busy is not None and seconds else None,
        }

    def state_dict(self) -> dict[str, float | None]:
        return dict(self._sums)

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        self._sums = dict(state)

    def _add(self, name: str, value: float | None) -> None:
        present = self._sums.setdefault(name, 0.0)
        self._sums[name] = None if value is None or present is None else present + value
