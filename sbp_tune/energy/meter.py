"""EnergyMeter: the energy of one run, from its start to now.

    with EnergyMeter(country="IRL") as energy:
        train()
    print(energy.kwh, energy.co2_kg, energy.components)

It measures the GPUs it is given, whole, and models processor and memory of one process tree. Several runs may
share a machine, each with its own meter, as long as they share no GPU.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from sbp_tune.energy.carbon import co2_kg
from sbp_tune.energy.counters.gpu import UPDATE_PERIOD_S, GpuEnergy, energy_source
from sbp_tune.energy.counters.jetson import HWMON, Jetson, JetsonGpu
from sbp_tune.energy.devices import nvml_uuid
from sbp_tune.energy.integral import Integral
from sbp_tune.energy.models import CPU_BUSY_W, CPU_IDLE_W, MODEL_UNCERTAINTY, RAM_W_PER_GB, cpu_joules, ram_joules
from sbp_tune.energy.nvml import Nvml, system_nvml
from sbp_tune.energy.process import ProcessTree
from sbp_tune.energy.reading import JOULES_PER_KWH, Component, Reading, Source
from sbp_tune.energy.repeater import Repeater
from sbp_tune.errors import InputError, SbpTuneError

if TYPE_CHECKING:
    from sbp_tune.config import EnergyConfig

SAMPLE_PERIOD_S = 1.0


class EnergyMeter:
    """Energy of a process tree and of the GPUs it holds. Runs once; methods may be called from any thread.

    country, region, cloud, cloud_region: the place, see `carbon.intensity`; without one there is no CO2 figure;
    pue: applied to CO2 only; gpus: UUIDs as NVML or torch write them, none for a CPU run; cpus: cores reserved for
    the run, by default all that the process may use; the three coefficients: see `models`; pid: root of the tree,
    by default this process; nvml, hwmon, clock: for tests. InputError for an impossible argument. A reading that
    cannot be true raises SbpTuneError, then and ever after. Synchronise the GPU before `start`, `read` and `stop`:
    work still queued would be left out.
    """

    def __init__(
        self,
        *,
        country: str | None = None,
        region: str | None = None,
        cloud: str | None = None,
        cloud_region: str | None = None,
        pue: float = 1.0,
        gpus: Sequence[object] = (),
        cpus: float | None = None,
        cpu_idle_w: float = CPU_IDLE_W,
        cpu_busy_w: float = CPU_BUSY_W,
        ram_w_per_gb: float = RAM_W_PER_GB,
        pid: int | None = None,
        nvml: Nvml | None = None,
        hwmon: Path = HWMON,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        cpus = _usable_cores() if cpus is None else cpus
        _check_at_least(1, pue=pue)
        _check_at_least(0, cpus=cpus, cpu_idle_w=cpu_idle_w, cpu_busy_w=cpu_busy_w, ram_w_per_gb=ram_w_per_gb)
        place = {"country": country, "region": region, "cloud": cloud, "cloud_region": cloud_region}
        self._co2_kg_per_kwh = (
            co2_kg(1.0, pue=pue, **place) if any(name is not None for name in place.values()) else None
        )
        # Where more cores are promised than there are, the idle processor is still billed only once.
        self._cores = min(cpus, os.cpu_count() or 1)
        self._cpu_idle_w = cpu_idle_w
        self._cpu_busy_w = cpu_busy_w
        self._ram_w_per_gb = ram_w_per_gb
        self._uuids = list(dict.fromkeys(nvml_uuid(gpu) for gpu in gpus))
        self._pid = os.getpid() if pid is None else pid
        self._nvml = nvml
        self._hwmon = hwmon
        self._clock = clock
        self._lock = threading.Lock()
        self._repeaters: list[Repeater] = []
        self._started: float | None = None
        self._final: Reading | None = None
        self._failure: SbpTuneError | None = None

    @classmethod
    def from_config(cls, config: EnergyConfig, gpus: Sequence[object] = (), cpus: float | None = None) -> EnergyMeter:
        """A meter for this process with the coefficients and the place of a config."""
        return cls(
            country=config.country,
            region=config.region,
            cloud=config.cloud,
            cloud_region=config.cloud_region,
            pue=config.pue,
            gpus=gpus,
            cpus=cpus,
            cpu_idle_w=config.cpu_idle_w,
            cpu_busy_w=config.cpu_busy_w,
            ram_w_per_gb=config.ram_w_per_gb,
        )

    def start(self) -> None:
        """Sets the zero point; SbpTuneError if a GPU is not on this machine."""
        if self._started is not None:
            raise SbpTuneError("an energy meter runs only once: make a new one")
        nvml = (self._nvml or system_nvml()) if self._uuids else None  # a CPU run never opens NVML
        self._tree = ProcessTree(self._pid)
        self._cpu_start = self._tree.cpu_seconds()
        now = self._clock()
        self._memory = Integral(now, self._tree.memory_gb())
        self._next_memory = now
        self._gpus = [_gpu(uuid, nvml, now, self._hwmon) for uuid in self._uuids] if nvml else []
        self._utilization = Integral(now, self._gpu_utilization())
        self._started = now
        self._repeaters.append(Repeater(SAMPLE_PERIOD_S, lambda: self._sample(self._sample_tree)))
        if any(gpu.source == "integrated" for gpu in self._gpus):
            self._repeaters.append(Repeater(UPDATE_PERIOD_S, lambda: self._sample(self._sample_gpus)))

    def read(self) -> Reading:
        """Energy since `start`; after `stop`, always the last one. Without GPU some 5 us a thread and process."""
        with self._lock:
            return self._reading()

    def stop(self) -> Reading:
        """Freezes the reading and ends the background threads. Calling it again changes nothing."""
        with self._lock:
            repeaters, self._repeaters = self._repeaters, []
        for repeater in repeaters:  # outside the lock: a running call may be waiting for it
            repeater.stop()
        with self._lock:
            self._final = self._reading()
            return self._final

    def __enter__(self) -> EnergyMeter:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An error of the measured code is the one to see; a failed meter will still say so when it is read.
        with contextlib.suppress(SbpTuneError) if error else contextlib.nullcontext():
            self.stop()

    @property
    def kwh(self) -> float:
        """As `read().kwh`."""
        return self.read().kwh

    @property
    def co2_kg(self) -> float | None:
        """As `read().co2_kg`."""
        return self.read().co2_kg

    @property
    def cpu_seconds(self) -> float:
        """As `read().cpu_seconds`."""
        return self.read().cpu_seconds

    @property
    def components(self) -> dict[str, Component]:
        """As `read().components`."""
        return self.read().components

    def _reading(self) -> Reading:
        if self._failure is not None:
            raise self._failure
        if self._final is not None:
            return self._final
        if self._started is None:
            raise SbpTuneError("the energy meter has not been started")
        try:
            return self._measure(self._clock(), self._started)
        except SbpTuneError as error:
            self._failure = error
            raise

    def _measure(self, now: float, started: float) -> Reading:
        seconds = now - started
        cpu_seconds = self._tree.cpu_seconds() - self._cpu_start
        cpu_j = cpu_joules(seconds, cpu_seconds, self._cores, self._cpu_idle_w, self._cpu_busy_w)
        ram_j = ram_joules(self._memory.until(now), self._ram_w_per_gb)
        components = {"gpu": self._gpu_component(now)} if self._gpus else {}
        if not any(gpu.includes_host for gpu in self._gpus):
            components["cpu"] = Component(cpu_j / JOULES_PER_KWH, "model", MODEL_UNCERTAINTY)
            components["ram"] = Component(ram_j / JOULES_PER_KWH, "model", MODEL_UNCERTAINTY)
        busy = self._utilization.until(now)
        reading = Reading(
            components, seconds, cpu_seconds, co2_kg=None, gpu_busy_seconds=None if math.isnan(busy) else busy
        )
        if self._co2_kg_per_kwh is None:
            return reading
        return dataclasses.replace(reading, co2_kg=reading.kwh * self._co2_kg_per_kwh)

    def _gpu_utilization(self) -> float:
        """Mean over the GPUs, 0 to 1; NaN without GPU or where one cannot say, and so then is the integral."""
        rates = [gpu.utilization() for gpu in self._gpus]
        known = [rate for rate in rates if rate is not None]
        return sum(known) / len(rates) if rates and len(known) == len(rates) else math.nan

    def _gpu_component(self, now: float) -> Component:
        """All GPUs together; one that cannot be measured leaves no number: a part must not pass for the whole."""
        joules = [gpu.joules(now) for gpu in self._gpus]
        uncertainty = [gpu.uncertainty(now) for gpu in self._gpus]
        if None in joules:
            return Component(None, "none", None)
        source: Source = "counter" if all(gpu.source == "counter" for gpu in self._gpus) else "integrated"
        return Component(sum(filter(None, joules)) / JOULES_PER_KWH, source, max(filter(None, uncertainty)))

    def _sample(self, sample: Callable[[float], None]) -> None:
        """One background sample; what goes wrong is raised by the next reading."""
        with self._lock:
            try:
                sample(self._clock())
            except SbpTuneError as error:
                self._failure = self._failure or error

    def _sample_tree(self, now: float) -> None:
        self._tree.cpu_seconds()
        self._utilization.add(now, self._gpu_utilization())
        if now >= self._next_memory:
            self._memory.add(now, self._tree.memory_gb())
            # Counting shared pages is slow for a large tree: spend at most 1 % of the time on it.
            self._next_memory = now + 100 * (self._clock() - now)

    def _sample_gpus(self, now: float) -> None:
        for gpu in self._gpus:
            gpu.sample(now)


def _gpu(uuid: str, nvml: Nvml, now: float, hwmon: Path) -> GpuEnergy | JetsonGpu:
    """A Jetson's GPU has a name in NVML, or none, but never an energy."""
    if not (uuid in nvml.uuids() and energy_source(uuid, nvml) != "none"):
        jetson = Jetson(now, hwmon)
        if jetson.sampled:
            return JetsonGpu(jetson, now)
    return GpuEnergy(uuid, nvml, now)


def _usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_at_least(least: float, **values: float) -> None:
    problems = [
        f"{name}: found {value:g}; must be at least {least:g}" for name, value in values.items() if not value >= least
    ]
    if problems:
        raise InputError(problems)
