"""What is true of every bill, checked against the records without the code that made it.

The nine invariants of the attribution. On each bill `check` proves conservation (1), signs (2), growth (3), that a GPU
held alone is billed exactly, whoever else was there (5), power limits (6) and coverage (9). A counter that disagrees
with power readings (7) is a warning in the bill; a busy GPU without energy (8) has no bill. That additional snapshots
change nothing (4) is a property of the rules, not of a bill, and a test.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from sbp_tune.energy.account import Sum
from sbp_tune.energy.bill import AttemptBill, Bill, Line, TrialBill
from sbp_tune.energy.counters.plausible import POWER_MARGIN
from sbp_tune.energy.reading import JOULES_PER_KWH
from sbp_tune.energy.records import Gap, Inventory, LeaseClosed, LeaseOpened, Record, Snapshot
from sbp_tune.errors import SbpTuneError

TOLERANCE = 1e-9  # of the machine's energy
_LATE_S = 0.1  # how late a reading may be, at either edge of a window
_DUST_KWH = 1e-12  # 4 microjoules: what adding up counters of 1e9 J can lose


def check(bill: Bill, records: Iterable[Record]) -> None:
    """SbpTuneError naming the first invariant that a bill breaks, given the records that it is made of."""
    audit = _Audit(bill)
    for record in records:
        audit.add(record)
    for name, line in {"machine": bill.machine, "driver": bill.driver, "idle": bill.idle, "other": bill.other}.items():
        _check_line(name, line)
    for name, trial in bill.trials.items():
        _check_trial(f"trial {name}", trial)
    measured, modelled = audit.machine_kwh()
    lines = [bill.driver, bill.idle, bill.other, *bill.trials.values()]
    for what, machine, parts, read in (
        ("measured", bill.machine.measured_kwh, [line.measured_kwh for line in lines], measured),
        ("modelled", bill.machine.modelled_kwh, [line.modelled_kwh for line in lines], modelled),
    ):
        _same(f"{what} kWh of trials and overhead, against the machine's", math.fsum(parts), machine)
        _same(f"{what} kWh of the machine, against its counters", machine, read)
    audit.check_attempts()


def _check_line(what: str, line: Line) -> None:
    for name, part in line.components.items():
        if (part.kwh is None) != (part.source == "none") or (part.kwh is None) != (part.uncertainty is None):
            raise SbpTuneError(f"{what}: {name}: {part}: a component without source has no number, and no other")
    kwh = [part.kwh for part in line.components.values() if part.kwh is not None]
    for value in (*kwh, line.measured_kwh, line.modelled_kwh):
        if not (math.isfinite(value) and value >= 0):
            raise SbpTuneError(f"{what}: {value} kWh: energy is a number of at least 0")
    if line.kwh is not None:
        _same(f"{what}: kWh of its components, against measured and modelled kWh", line.kwh, line.known_kwh)


def _check_trial(what: str, trial: TrialBill) -> None:
    _check_line(what, trial)
    for name in ("measured_kwh", "modelled_kwh"):
        total = math.fsum(getattr(attempt, name) for attempt in trial.attempts)
        _same(f"{what}: {name}, against its attempts'", getattr(trial, name), total)
    for attempt in trial.attempts:
        _check_line(f"{what}, attempt {attempt.lease.attempt}", attempt)
        _check_growth(f"{what}, attempt {attempt.lease.attempt}", attempt.epochs, attempt.kwh, attempt.kwh_wasted)
        if not 0 <= attempt.coverage <= 1:
            raise SbpTuneError(f"{what}: coverage {attempt.coverage} is not a fraction")
    _check_growth(what, trial.epochs, trial.kwh, trial.kwh_wasted)


def _check_growth(what: str, epochs: dict[int, float | None], kwh: float | None, wasted: float | None) -> None:
    so_far = 0.0
    for epoch, value in sorted(epochs.items()):
        if value is not None and value < so_far - _slack(so_far):
            raise SbpTuneError(f"{what}: {value:g} kWh after epoch {epoch}, but {so_far:g} before: energy cannot fall")
        so_far = so_far if value is None else value
    if kwh is not None and max(so_far, wasted or 0.0) > kwh + _slack(kwh):
        raise SbpTuneError(f"{what}: {so_far:g} kWh in epochs, {wasted or 0:g} wasted, of only {kwh:g} kWh")


@dataclass
class _Node:
    """What the audit knows of one node; readings: the last ones, by device, as (time, joules); carried: over a gap."""

    inventory: Inventory
    readings: dict[str, tuple[float, float]] = field(default_factory=dict)
    last: Snapshot | None = None
    gap: bool = False
    carried: set[str] = field(default_factory=set)
    on_gpu: dict[str, list[AttemptBill]] = field(default_factory=dict)


class _Audit:
    """Adds the records up in the plainest way, with the spans of the bill's leases and none of its sums."""

    def __init__(self, bill: Bill) -> None:
        attempts = [attempt for trial in bill.trials.values() for attempt in trial.attempts]
        self._attempts = {attempt.lease.lease: attempt for attempt in attempts}
        self._nodes: dict[str, _Node] = {}
        self._kwh: defaultdict[str, Sum] = defaultdict(Sum)
        self._gpu_j: defaultdict[str, Sum] = defaultdict(Sum)
        self._cpu_s: defaultdict[str, Sum] = defaultdict(Sum)
        self._seen_s: defaultdict[str, Sum] = defaultdict(Sum)
        self._closed: set[str] = set()
        self._limits: dict[str, float | None] = {}
        self._cpu_w: dict[str, tuple[float, float]] = {}

    def add(self, record: Record) -> None:
        match record:
            case Inventory():
                self._inventory(record)
            case Gap():
                self._cut(self._node)
            case Snapshot():
                self._snapshot(self._node, record)
            case LeaseOpened():
                attempt = self._attempts.get(record.lease)
                for uuid in record.gpus if attempt is not None else ():
                    on_gpu = self._node.on_gpu.setdefault(uuid, [])
                    if attempt is not None and attempt not in on_gpu:
                        on_gpu.append(attempt)
            case LeaseClosed():
                self._closed.add(record.lease)
            case _:
                pass

    def machine_kwh(self) -> tuple[float, float]:
        """Measured and modelled."""
        return self._kwh["measured"].value, self._kwh["modelled"].value

    def check_attempts(self) -> None:
        """Compares every attempt with what its own counters say."""
        for lease, attempt in self._attempts.items():
            what = f"lease {lease} of trial {attempt.lease.trial}"
            _same(f"{what}: CPU seconds, against its snapshots", attempt.cpu_seconds, self._cpu_s[lease].value)
            if attempt.coverage * attempt.seconds > self._seen_s[lease].value * (1 + TOLERANCE):
                raise SbpTuneError(f"{what}: coverage {attempt.coverage:.3f} is more than its snapshots cover")
            self._check_gpu(what, attempt)
            self._check_cpu(what, attempt)

    def _check_gpu(self, what: str, attempt: AttemptBill) -> None:
        part = attempt.components.get("gpu")
        if part is None or part.kwh is None:
            return
        if not attempt.shared:
            read = self._gpu_j[attempt.lease.lease].value / JOULES_PER_KWH
            _same(f"{what}: kWh of the GPUs that it held alone, against their counters", part.kwh, read)
        limits = [self._limits[uuid] for uuid in attempt.lease.gpus]
        limit_w = math.fsum(limit for limit in limits if limit is not None)
        most = POWER_MARGIN * limit_w * (attempt.seconds + 2 * _LATE_S) / JOULES_PER_KWH
        if None not in limits and part.kwh > most + _slack(most):
            raise SbpTuneError(f"{what}: {part.kwh:g} kWh is more than its GPUs can use at {limit_w:.0f} W")

    def _check_cpu(self, what: str, attempt: AttemptBill) -> None:
        part = attempt.components.get("cpu")
        if part is None or part.kwh is None or part.source != "model":
            return
        idle_w, busy_w = self._cpu_w[attempt.node]
        most = (idle_w * attempt.lease.cpus * attempt.seconds + busy_w * attempt.cpu_seconds) / JOULES_PER_KWH
        if part.kwh > most + _slack(most):
            raise SbpTuneError(f"{what}: {part.kwh:g} kWh is more than {most:g} of its cores and its CPU seconds")

    def _inventory(self, inventory: Inventory) -> None:
        self._node = node = self._nodes.setdefault(inventory.node, _Node(inventory))
        before, node.inventory = node.inventory, inventory
        if (before.boot, before.time) != (inventory.boot, inventory.time):
            node.readings = {device: at for device, at in node.readings.items() if _steady(before, device)}
            self._cut(node)
        if before.boot != inventory.boot:
            node.readings, node.on_gpu, node.last = {}, {}, None
        self._limits |= {uuid: gpu.limit_w for uuid, gpu in inventory.gpus.items()}
        idle_w, busy_w = self._cpu_w.get(inventory.node, (0.0, 0.0))
        self._cpu_w[inventory.node] = (max(idle_w, inventory.cpu_idle_w), max(busy_w, inventory.cpu_busy_w))

    def _cut(self, node: _Node) -> None:
        node.gap = True
        node.readings = {device: at for device, at in node.readings.items() if _steady(node.inventory, device)}
        node.carried = set(node.readings)

    def _snapshot(self, node: _Node, now: Snapshot) -> None:
        inventory = node.inventory
        if node.last is not None and now.time == node.last.time:  # two lease edges at once
            node.last = replace(node.last, leases={**now.leases, **node.last.leases})
            return
        if node.gap:  # whoever is not seen again did not outlive it
            known = now.leases.keys() | self._closed
            node.on_gpu = {uuid: [a for a in held if a.lease.lease in known] for uuid, held in node.on_gpu.items()}
        for uuid, gpu in inventory.gpus.items():
            if gpu.source != "none":
                self._read(node, uuid, now.time, now.gpu_j.get(uuid))
        self._read(node, "busy", now.time, now.busy_cpu_s)
        if inventory.cpu_source == "model":
            joules = inventory.cpu_idle_w * inventory.cpus * now.time + inventory.cpu_busy_w * now.busy_cpu_s
            self._read(node, "cpu", now.time, joules, "modelled")
        elif inventory.cpu_source != "none":
            self._read(node, "cpu", now.time, now.cpu_j)
        if inventory.ram_source == "model":
            self._read(node, "ram", now.time, inventory.ram_w_per_gb * inventory.ram_gb * now.time, "modelled")
        elif inventory.ram_source != "none":
            self._read(node, "ram", now.time, now.dram_j)
        self._leases(node, now)
        node.last, node.gap = now, False

    def _read(self, node: _Node, device: str, time: float, value: float | None, kind: str = "measured") -> None:
        """One reading of a device; what it adds belongs to the machine, and on a GPU to the attempts that hold it."""
        if value is None:
            return
        start, before = node.readings.get(device, (time, value))
        node.readings[device] = (time, value)
        carried = device in node.carried
        node.carried.discard(device)
        if value < before and not carried:
            raise SbpTuneError(f"node {node.inventory.node}: the counter of {device} went backwards")
        if value < before or device == "busy":
            return
        self._kwh[kind].add((value - before) / JOULES_PER_KWH)
        for attempt in node.on_gpu.get(device, []):
            seconds = _overlap(attempt, start, time)
            if seconds:
                self._gpu_j[attempt.lease.lease].add((value - before) * seconds / (time - start))
        node.on_gpu[device] = [attempt for attempt in node.on_gpu.get(device, []) if attempt.ended > time]

    def _leases(self, node: _Node, now: Snapshot) -> None:
        last = node.last
        if last is None or node.gap:
            return
        for lease in last.leases.keys() & now.leases.keys():
            used = now.leases[lease].cpu_s - last.leases[lease].cpu_s
            if used < 0:
                raise SbpTuneError(f"lease {lease}: CPU seconds went backwards: were reaped children dropped?")
            if lease in self._attempts and (seconds := _overlap(self._attempts[lease], last.time, now.time)):
                self._cpu_s[lease].add(used)
                self._seen_s[lease].add(seconds)


def _steady(inventory: Inventory, device: str) -> bool:
    """Whether a device's readings go on when nobody looks."""
    return device in inventory.gpus and inventory.gpus[device].source == "counter"


def _overlap(attempt: AttemptBill, start: float, end: float) -> float:
    return max(0.0, min(end, attempt.ended) - max(start, attempt.opened))


def _slack(kwh: float) -> float:
    return TOLERANCE * abs(kwh) + _DUST_KWH


def _same(what: str, one: float, other: float) -> None:
    if not abs(one - other) <= _slack(max(abs(one), abs(other))):
        raise SbpTuneError(f"{what}: {one:.12g} and {other:.12g} differ: the bill is wrong")
