"""EnergyMeter: the energy of one run, from its start to now.

    with EnergyMeter(country="IRL") as energy:
        train()
    print(energy.kwh, energy.co2_kg, energy.components)

It is one lease of a `NodeMeter` that keeps no ledger: the counters and the rules are those of a search.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from sbp_tune.energy.carbon import co2_kg
from sbp_tune.energy.counters.jetson import HWMON
from sbp_tune.energy.counters.machine import MachineCounters, MachineReading
from sbp_tune.energy.counters.rapl import POWERCAP
from sbp_tune.energy.devices import nvml_uuid
from sbp_tune.energy.models import CPU_BUSY_W, CPU_IDLE_W, RAM_W_PER_GB
from sbp_tune.energy.node_meter import NodeMeter
from sbp_tune.energy.nvml import Nvml
from sbp_tune.energy.reading import Component, Reading
from sbp_tune.energy.records import Reason
from sbp_tune.errors import InputError, SbpTuneError

if TYPE_CHECKING:
    from sbp_tune.config import EnergyConfig

_RUN = "run"


class EnergyMeter:
    """Energy of a process tree and of the GPUs it holds. Runs once; methods may be called from any thread.

    The GPUs are the run's whole, idle or not. RAPL and the models tell what the whole machine uses, of which the run
    is billed its part (see `split`): of the processor the idle energy of the cores that it reserved, and the rest by
    CPU seconds; of the memory by resident GB. What other processes use is not in its numbers, so that several runs,
    each with its own meter, may share a machine, as long as they share no GPU.

    country, region, cloud, cloud_region: the place, see `carbon.intensity`; without one there is no CO2 figure;
    pue: applied to CO2 only; gpus: UUIDs as NVML or torch write them, none for a CPU run; cpus: cores reserved for
    the run, by default all that the process may use; the three coefficients: see `models`, of which cpu_idle_w also
    says what part of RAPL's joules is idle; pid: root of the tree, by default this process; nvml, powercap, hwmon,
    clock: for tests. InputError for an impossible argument. A reading that cannot be true, or a counter that can no
    longer be read, raises SbpTuneError, then and ever after. Synchronise the GPU before `start`, `read` and `stop`:
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
        powercap: Path = POWERCAP,
        hwmon: Path = HWMON,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cpus = _usable_cores() if cpus is None else cpus
        _check_at_least(1, pue=pue)
        _check_at_least(0, cpus=self._cpus, cpu_idle_w=cpu_idle_w, cpu_busy_w=cpu_busy_w, ram_w_per_gb=ram_w_per_gb)
        place = {"country": country, "region": region, "cloud": cloud, "cloud_region": cloud_region}
        self._co2_kg_per_kwh = (
            co2_kg(1.0, pue=pue, **place) if any(name is not None for name in place.values()) else None
        )
        self._gpus = dict.fromkeys((nvml_uuid(gpu) for gpu in gpus), 1.0)
        self._pid, self._clock = pid, clock
        self._counters = partial(
            _RunCounters,
            cpu_idle_w=cpu_idle_w,
            cpu_busy_w=cpu_busy_w,
            ram_w_per_gb=ram_w_per_gb,
            gpus=list(self._gpus),
            nvml=nvml,
            powercap=powercap,
            hwmon=hwmon,
            clock=clock,
        )
        self._lock = threading.Lock()
        self._node: NodeMeter | None = None
        self._final: Reading | None = None

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

    def start(self, epoch: int = 0) -> None:
        """Sets the zero point; SbpTuneError if a GPU or the process is not on this machine.

        epoch: as many the run has finished already; it and `mark` are for who meters by a `NodeLease` as well.
        """
        with self._lock:
            if self._node is not None:
                raise SbpTuneError("an energy meter runs only once: make a new one")
            node = self._node = NodeMeter(platform.node(), None, self._counters(), clock=self._clock)
            try:
                node.open(_RUN, _RUN, pid=self._pid, gpus=self._gpus, cpus=self._cpus, continued_epoch=epoch)
            except SbpTuneError:
                node.stop()
                raise

    def read(self) -> Reading:
        """Energy since `start`; after `stop`, always the last one; of a process that has ended, up to its end.

        It reads all counters: under 2 ms without a GPU, and NVML takes up to some milliseconds for each.
        """
        with self._lock:
            return self._final or self._with_co2(self._metering().read(_RUN))

    def mark(self, epoch: int) -> Reading:
        """As `read`, at the end of an epoch."""
        with self._lock:
            return self._final or self._with_co2(self._metering().mark(_RUN, epoch, True))

    def stop(self, reason: Reason = "finished") -> Reading:
        """Freezes the reading and ends the background threads. Calling it again changes nothing."""
        with self._lock:
            node = self._metering()
            if self._final is None:
                try:
                    self._final = self._with_co2(node.close(_RUN, reason))
                finally:
                    node.stop()
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

    def _metering(self) -> NodeMeter:
        if self._node is None:
            raise SbpTuneError("the energy meter has not been started")
        return self._node

    def _with_co2(self, reading: Reading) -> Reading:
        if self._co2_kg_per_kwh is None:
            return reading
        return dataclasses.replace(reading, co2_kg=reading.kwh * self._co2_kg_per_kwh)


class _RunCounters(MachineCounters):
    """Counters of one run: a part that fails spoils the whole number, which a node's other trials must not suffer."""

    def read(self) -> MachineReading:
        reading = super().read()
        for why in reading.failures.values():
            raise SbpTuneError(why)
        return reading


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
