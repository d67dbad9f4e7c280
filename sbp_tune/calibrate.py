"""What one machine's energy figures are worth: idle power, update periods, and the spread of identical runs.

Hence how many repeats a difference of 5 % needs.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from sbp_tune.energy.counters.gpu import UPDATE_PERIOD_S
from sbp_tune.energy.counters.machine import MachineCounters
from sbp_tune.energy.counters.part import CPU, DRAM
from sbp_tune.energy.meter import EnergyMeter
from sbp_tune.energy.nvml import Nvml, system_nvml
from sbp_tune.energy.reading import JOULES_PER_KWH
from sbp_tune.energy.repeater import Repeater
from sbp_tune.files import write_text_atomic

if TYPE_CHECKING:
    from rich.console import Console

DIFFERENCE, POWER, ALPHA = 0.05, 0.8, 0.05
MEASURED = ("counter", "integrated")
_POLL_S = 3.0  # enough for 30 updates of a counter that moves every 100 ms


@dataclass(frozen=True)
class Device:
    """One device at rest: by `name` (a GPU's UUID, `cpu` or `dram`).

    source: see `Component`; idle_w: mean power, W, None where a formula would have to say it; update_s: how often its
    reading changes, s, None where it was not seen to.
    """

    name: str
    source: str
    idle_w: float | None = None
    update_s: float | None = None


@dataclass(frozen=True)
class Spread:
    """The same work again and again: values in the order of the runs; cv: standard deviation over mean, of a sample."""

    quantity: str
    values: tuple[float, ...]
    cv: float


@dataclass(frozen=True)
class Calibration:
    """A machine's.

    seconds: of each run, about; busy_cores: of the machine while it should have been idle; load: where the work ran;
    spreads: in what the runs differed, the deciding one first: measured energy where there is any; repeats: runs an
    arm needs by that one's cv, to find a difference of 5 % with 80 % power at alpha 0.05; cv_range, repeats_range:
    95 % interval of that cv, wide with few runs, and what its ends ask for.
    """

    seconds: float
    devices: tuple[Device, ...]
    busy_cores: float
    load: str
    spreads: tuple[Spread, ...]
    repeats: int
    cv_range: tuple[float, float]
    repeats_range: tuple[int, int]


def calibration(
    seconds: float = 60.0, repeats: int = 4, nvml: Nvml | None = None, say: Callable[[str], object] = lambda line: None
) -> Calibration:
    """Measures this machine for about `seconds * (repeats + 2)`; say: is told what is being done."""
    nvml = nvml or system_nvml()
    counters = MachineCounters(nvml=nvml)
    repeater = Repeater(UPDATE_PERIOD_S, counters.sample) if counters.sampled else None
    try:
        say(f"idle for {seconds:g} s: leave the machine alone")
        devices, busy_cores = idle(counters, seconds)
        devices = [dataclasses.replace(device, update_s=_period_of(device, counters, nvml)) for device in devices]
        work, load, gpus = _work()
        say(f"warming up for {seconds:g} s on {load}, then {repeats} identical runs")
        amount = amount_of(work, seconds)
        spreads = spread(lambda: work(amount), repeats, gpus)
    finally:
        if repeater is not None:
            repeater.stop()
    low, high = cv_interval(spreads[0].cv, repeats)
    needed = [repeats_needed(cv) for cv in (spreads[0].cv, low, high)]
    return Calibration(
        seconds, tuple(devices), busy_cores, load, tuple(spreads), needed[0], (low, high), (needed[1], needed[2])
    )


def idle(
    counters: MachineCounters, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> tuple[list[Device], float]:
    """Mean power of every device over some seconds, and how many cores were busy meanwhile."""
    first = last = counters.read()
    while last.time - first.time < seconds:
        sleep(min(1.0, seconds))  # a counter wants to be read now and then
        last = counters.read()
    machine, passed = counters.inventory, last.time - first.time
    joules = machine.joules(first, last)
    devices = []
    for name, part in {**machine.gpus, CPU: machine.cpu, DRAM: machine.dram}.items():
        used = joules[name] if part.source in MEASURED else None
        devices.append(Device(name, part.source, None if used is None else used / passed))
    return devices, (last.busy_cpu_s - first.busy_cpu_s) / passed


def update_period(
    read: Callable[[], float | None], seconds: float = _POLL_S, clock: Callable[[], float] = time.monotonic
) -> float | None:
    """Median s between changes of a reading that is polled as fast as it goes; None if it changed less than 3 times."""
    start = now = clock()
    value, changes = read(), []
    while now - start < seconds:
        found, now = read(), clock()
        if found != value:
            changes.append(now)
            value = found
    return statistics.median(b - a for a, b in pairwise(changes)) if len(changes) >= 3 else None


def amount_of(work: Callable[[int], None], seconds: float, clock: Callable[[], float] = time.monotonic) -> int:
    """How much of the work takes so long, found by doing it."""
    start, amount, step = clock(), 0, 1
    while (passed := clock() - start) < seconds:
        if passed > 0:
            step = max(1, int(amount / passed * min(seconds - passed, seconds / 20)))
        work(step)
        amount += step
    return amount


def spread(work: Callable[[], None], repeats: int, gpus: Sequence[object] = ()) -> list[Spread]:
    """Does the same work again and again, and tells how far its numbers lie apart; measured energy first."""
    runs = []
    for _ in range(repeats):
        with EnergyMeter(gpus=gpus) as meter:
            work()
        reading = meter.read()
        measured = {name: part.kwh for name, part in reading.components.items() if part.source in MEASURED}
        modelled = [part.kwh for part in reading.components.values() if part.kwh and part.source == "model"]
        kwh = {"GPU": measured.get("gpu"), "CPU": measured.get("cpu"), "Modelled": math.fsum(modelled) or None}
        run = {f"{name} energy (J)": None if value is None else value * JOULES_PER_KWH for name, value in kwh.items()}
        run |= {"CPU time (s)": reading.cpu_seconds, "Wall time (s)": reading.seconds}
        runs.append({name: value for name, value in run.items() if value is not None})
    names = [name for name in runs[0] if all(name in run for run in runs)]
    return [_spread(name, [run[name] for run in runs]) for name in names]


def repeats_needed(cv: float, difference: float = DIFFERENCE, power: float = POWER, alpha: float = ALPHA) -> int:
    """Runs an arm so that a two-sided t-test of two arms finds a relative difference of means; at least 2."""
    from scipy import stats  # half a second

    def enough(runs: int) -> bool:
        freedom, shift = 2 * runs - 2, difference / cv * math.sqrt(runs / 2)
        # The other tail, a difference found with the wrong sign, is next to nothing.
        return bool(stats.nct.sf(stats.t.ppf(1 - alpha / 2, freedom), freedom, shift) >= power)

    # Far more than enough runs shift the noncentral t beyond what can be computed, so the search comes from below.
    if cv < difference / 20:
        return 2
    most = 2
    while not enough(most):
        most *= 2
    return 2 + bisect_left(range(2, most), True, key=enough)


def cv_interval(cv: float, runs: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the true coefficient of variation of normal values, given that of a few runs."""
    from scipy import stats

    tail = (1 - confidence) / 2
    low, high = (cv * math.sqrt((runs - 1) / stats.chi2.ppf(part, runs - 1)) for part in (1 - tail, tail))
    return low, high


def print_calibration(found: Calibration, console: Console) -> None:
    """Shows it as tables and plain sentences."""
    from rich.table import Table
    from rich.text import Text

    devices = Table("Device", "Source", "Idle", "Reading changes every")
    for device in found.devices:
        idle_w = "modelled" if device.source == "model" else "not measured"
        period = "–" if device.update_s is None else f"{1000 * device.update_s:.3g} ms"
        devices.add_row(
            device.name, device.source, idle_w if device.idle_w is None else f"{device.idle_w:.3g} W", period
        )
    console.print(devices)
    runs = Table("Identical runs", *(str(number) for number, _ in enumerate(found.spreads[0].values, 1)), "CV")
    for one in found.spreads:
        runs.add_row(one.quantity, *(f"{value:.4g}" for value in one.values), f"{100 * one.cv:.2f} %")
    console.print(runs)
    for line in sentences(found):
        console.print(Text(line), soft_wrap=True)


def sentences(found: Calibration) -> list[str]:
    """What it means, a line each."""
    first, (low, high) = found.spreads[0], found.cv_range
    lines = [
        f"{first.quantity.partition(' (')[0]} of identical runs on {found.load} has a CV of {100 * first.cv:.2f} % "
        f"(95 % interval from {len(first.values)} runs: {100 * low:.2f} to {100 * high:.2f} %).",
        f"To find a difference of {100 * DIFFERENCE:g} %, run each arm {found.repeats} times (80 % power, alpha 0.05; "
        f"{found.repeats_range[0]} to {found.repeats_range[1]} by that interval).",
    ]
    if first.quantity.startswith("Modelled"):
        lines.append("Nothing is measured here: the energy is modelled, so this is the spread of CPU time and memory.")
    gpus_w = [one.idle_w for one in found.devices if one.name not in (CPU, DRAM) and one.idle_w is not None]
    if gpus_w:
        idle_w = f"energy: {{gpu_idle_w: {statistics.fmean(gpus_w):.3g}}}"
        lines.append(f"For trials that share a GPU, a study file says `{idle_w}`: what it draws idle goes by fraction.")
    if found.busy_cores > 0.2:
        lines.append(f"The machine was not idle: {found.busy_cores:.1f} cores were busy; these figures are too high.")
    return lines


def write_calibration(found: Calibration, output: Path) -> None:
    """As JSON."""
    write_text_atomic(output, json.dumps(dataclasses.asdict(found), indent=2) + "\n")


def _spread(quantity: str, values: Sequence[float]) -> Spread:
    mean = statistics.fmean(values)
    return Spread(quantity, tuple(values), statistics.stdev(values) / mean if mean else 0.0)


def _period_of(device: Device, counters: MachineCounters, nvml: Nvml) -> float | None:
    """Of what is read from hardware."""
    if device.source not in MEASURED:
        return None
    if device.name in nvml.uuids():
        query = nvml.total_energy_j if device.source == "counter" else nvml.power_w
        return update_period(lambda: query(device.name))
    if device.name in (CPU, DRAM):
        return update_period(lambda: counters.read().cpu_j if device.name == CPU else counters.read().dram_j)
    return update_period(lambda: counters.read().gpu_j[device.name])


def _work() -> tuple[Callable[[int], None], str, list[object]]:
    """Matrix products in torch, so many at a time; where they run; the GPU that it is, if any."""
    import torch

    on_gpu = torch.cuda.is_available()
    size = 4096 if on_gpu else 512
    a, b = (torch.full((size, size), 0.5, device="cuda" if on_gpu else "cpu") for _ in range(2))

    def work(amount: int) -> None:
        for _ in range(amount):
            torch.mm(a, b)
        if on_gpu:
            torch.cuda.synchronize()

    work(3)  # libraries are loaded with the first
    if not on_gpu:
        return work, f"the processor, {torch.get_num_threads()} threads", []
    properties = torch.cuda.get_device_properties(0)
    return work, properties.name, [properties.uuid]
