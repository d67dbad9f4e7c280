"""All counters of one machine as one object, for the one meter of a node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sbp_tune.energy.counters.gpu import NvidiaGpus
from sbp_tune.energy.counters.host import PROC, Host
from sbp_tune.energy.counters.jetson import GPU, HWMON, Jetson
from sbp_tune.energy.counters.part import CPU, DRAM, PSYS, Counter, Part
from sbp_tune.energy.counters.rapl import POWERCAP, Rapl
from sbp_tune.energy.counters.unsupported import DRM, not_measured
from sbp_tune.energy.integral import Integral
from sbp_tune.energy.models import CPU_BUSY_W, CPU_IDLE_W, MODEL_UNCERTAINTY, RAM_W_PER_GB, cpu_joules, ram_joules
from sbp_tune.energy.nvml import Nvml, system_nvml
from sbp_tune.errors import SbpTuneError


@dataclass(frozen=True)
class MachineInventory:
    """What is in a machine, and how each part's energy is known.

    gpus: by UUID, those without source too; cpu, dram: with source `model`, the coefficients apply (see `models`);
    cpus: logical cores; ram_gb: installed memory, GB; gpu_idle_w: W of any of the GPUs at rest, where known, to divide
    a shared one by; not_measured: lines on hardware that nothing here reads.
    """

    gpus: dict[str, Part]
    cpu: Part
    dram: Part
    cpus: int
    ram_gb: float
    cpu_idle_w: float
    cpu_busy_w: float
    ram_w_per_gb: float
    gpu_idle_w: float | None = None
    not_measured: tuple[str, ...] = ()

    def joules(self, first: MachineReading, last: MachineReading) -> dict[str, float | None]:
        """Energy between two readings, J, by UUID, `cpu` and `dram`, with the models; None for what has no number."""
        seconds, busy_s = last.time - first.time, last.busy_cpu_s - first.busy_cpu_s
        found = {uuid: _difference(first.gpu_j[uuid], last.gpu_j[uuid]) for uuid in self.gpus}
        found[CPU] = _difference(first.cpu_j, last.cpu_j)
        found[DRAM] = _difference(first.dram_j, last.dram_j)
        if self.cpu.source == "model":
            found[CPU] = cpu_joules(seconds, busy_s, self.cpus, self.cpu_idle_w, self.cpu_busy_w)
        if self.dram.source == "model":
            found[DRAM] = ram_joules(self.ram_gb * seconds, self.ram_w_per_gb)
        return found


@dataclass(frozen=True)
class MachineReading:
    """Raw counters, of which only differences between two readings mean anything, and none ever falls.

    gpu_j: J by UUID, of source `counter` since the driver was loaded; cpu_j, dram_j: J; each None where the source
    is `model` or `none`, and from its failure on; gpu_power_j: power readings, one for each `read`, summed over time
    beside a counter, to check it by; gpu_busy_s: seconds in which a kernel ran on the GPU, whoever's; busy_cpu_s:
    core seconds of the whole machine; used_gb: memory in use now, GB; failures: what went wrong, by UUID, `cpu` or
    `dram`.
    """

    time: float
    gpu_j: dict[str, float | None]
    cpu_j: float | None
    dram_j: float | None
    busy_cpu_s: float
    used_gb: float
    gpu_power_j: dict[str, float | None] = field(default_factory=dict)
    gpu_busy_s: dict[str, float | None] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


class MachineCounters:
    """Reads everything that a machine can tell about its energy. Methods may be called from any thread.

    The three coefficients: see `models`, used where no counter is; gpu_idle_w: see `MachineInventory`; gpus: UUIDs of
    those to read, by default all, and with none of them NVML is not opened; the rest: for tests. sampled: whether
    `sample` must be called every `UPDATE_PERIOD_S` because power has to be summed up; without, `read` once a second is
    enough, and at most a minute may pass between two. A part that fails is None from then on and named in `failures`;
    the others go on.
    """

    def __init__(
        self,
        *,
        cpu_idle_w: float = CPU_IDLE_W,
        cpu_busy_w: float = CPU_BUSY_W,
        ram_w_per_gb: float = RAM_W_PER_GB,
        gpu_idle_w: float | None = None,
        gpus: Sequence[str] | None = None,
        nvml: Nvml | None = None,
        powercap: Path = POWERCAP,
        hwmon: Path = HWMON,
        proc: Path = PROC,
        drm: Path = DRM,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._lock = clock, threading.Lock()
        now = clock()
        wanted = gpus is None or len(gpus) > 0
        self._nvidia = NvidiaGpus((nvml or system_nvml()) if wanted else None, now, gpus)
        # A Jetson's only GPU has a UUID where NVML lists it, but no energy there.
        silent = [uuid for uuid, part in self._nvidia.parts.items() if part.source == "none"]
        jetson = Jetson(now, hwmon, gpu=silent[0] if silent else GPU)
        self._chosen = _choose([jetson, self._nvidia, Rapl(now, powercap)])
        self._host = Host(proc)
        self._failures: dict[str, str] = {}
        self.sampled = any(counter.sampled for counter in self._chosen.values())
        parts = {name: counter.parts[name] for name, counter in self._chosen.items()}
        self.inventory = MachineInventory(
            {name: part for name, part in parts.items() if name not in (CPU, DRAM, PSYS)},
            _or_model(parts[CPU]),
            _or_model(parts[DRAM]),
            self._host.cpus,
            self._host.ram_gb,
            cpu_idle_w,
            cpu_busy_w,
            ram_w_per_gb,
            gpu_idle_w,
            (*not_measured(drm), *([jetson.reason] if jetson.reason else [])),
        )
        self._power: dict[str, Integral | None] = {uuid: Integral(now, 0.0) for uuid in self._nvidia.parts}
        self._busy: dict[str, Integral | None] = {uuid: Integral(now, 0.0) for uuid in self._nvidia.parts}
        self._side_readings(now)

    def sample(self) -> None:
        """Takes one reading of what has to be summed up."""
        with self._lock:
            now = self._clock()
            for counter in set(self._chosen.values()):
                counter.sample(now)

    def read(self) -> MachineReading:
        """All counters now. Under 2 ms without a GPU; NVML takes up to some milliseconds for each."""
        with self._lock:
            now = self._clock()
            power_j, busy_s = self._side_readings(now)
            return MachineReading(
                now,
                {uuid: self._joules(uuid, now) for uuid in self.inventory.gpus},
                self._joules(CPU, now),
                self._joules(DRAM, now),
                self._host.busy_s(),
                self._host.used_gb(),
                power_j,
                busy_s,
                dict(self._failures),
            )

    def _joules(self, part: str, now: float) -> float | None:
        if part in self._failures:
            return None
        try:
            return self._chosen[part].joules(part, now)
        except SbpTuneError as error:
            self._failures[part] = str(error)
            return None

    def _side_readings(self, now: float) -> tuple[dict[str, float | None], dict[str, float | None]]:
        return _add(self._power, self._nvidia.power_w, now), _add(self._busy, self._nvidia.utilization, now)


def _difference(first: float | None, last: float | None) -> float | None:
    return None if first is None or last is None else last - first


def _choose(counters: list[Counter]) -> dict[str, Counter]:
    """For each part the first counter that knows its energy, else the first that says why it does not."""
    chosen: dict[str, Counter] = {}
    for counter in counters:
        for name, part in counter.parts.items():
            if name not in chosen or (not _known(chosen[name].parts[name]) and _known(part)):
                chosen[name] = counter
    return chosen


def _known(part: Part) -> bool:
    return part.source != "none" or part.included_in is not None


def _or_model(part: Part) -> Part:
    if _known(part):
        return part
    return Part("model", "model", MODEL_UNCERTAINTY, part.boundary, reason=part.reason)


def _add(sums: dict[str, Integral | None], query: Callable[[str], float | None], now: float) -> dict[str, float | None]:
    """Takes one reading for each sum; a sum with a reading missing is None for good."""
    for uuid, integral in sums.items():
        value = query(uuid)
        if value is None or integral is None:
            sums[uuid] = None
        else:
            integral.add(now, value)
    return {uuid: None if integral is None else integral.until(now) for uuid, integral in sums.items()}
