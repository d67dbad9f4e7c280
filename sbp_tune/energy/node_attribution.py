"""The energy of one node, interval by interval, to the leases that were open on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from sbp_tune.energy.account import Account, Sum
from sbp_tune.energy.gates import CrossCheck, PowerGate, StillGate
from sbp_tune.energy.lease_book import LeaseBook
from sbp_tune.energy.lease_state import LeaseState
from sbp_tune.energy.models import cpu_joules, ram_joules
from sbp_tune.energy.reading import Source
from sbp_tune.energy.records import GpuInfo, Inventory, Snapshot
from sbp_tune.energy.split import CpuHold, GpuHold, Shares, is_shared, split_cpu, split_gpu, split_ram
from sbp_tune.errors import SbpTuneError

Value = TypeVar("Value")


class NodeAttribution:
    """Bills the intervals between a node's snapshots; `leases` must know by then who was there.

    idle, other: what no lease is charged with, by nobody's use and by other processes'; machine: everything. Over a
    gap only the energy counters of GPUs go on; what they counted belongs to the leases that the next snapshot shows.
    """

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.leases = LeaseBook()
        self.idle, self.other, self.machine = Account(), Account(), Account()
        self.seconds = Sum()
        self.last: Snapshot | None = None
        self.not_measured: dict[str, None] = {}
        self._failures: dict[str, None] = {}
        self._since: dict[str, Snapshot] = {}  # of each device, the snapshot with its last reading
        self._carried: set[str] = set()  # GPUs whose last reading is from before a gap
        self._gap = False
        self._cross_checks: dict[str, CrossCheck] = {}
        self._look_around()

    def restart(self, inventory: Inventory) -> None:
        """The meter began again, or knows better; no lease outlives a boot of the machine."""
        before, self.inventory = self.inventory, inventory
        if (inventory.boot, inventory.time) != (before.boot, before.time):
            steady = {uuid for uuid, info in before.gpus.items() if info.source == "counter"}
            self._since = {device: since for device, since in self._since.items() if device in steady}
            self.gap()
        if inventory.boot != before.boot:
            self.leases.reboot()
            self._since, self.last = {}, None
        self._look_around()

    def gap(self) -> None:
        """Anything may have happened between the last snapshot and the next."""
        self._gap = True
        steady = {uuid for uuid, info in self.inventory.gpus.items() if info.source == "counter"}
        self._since = {device: since for device, since in self._since.items() if device in steady}
        self._carried = set(self._since)

    def snapshot(self, now: Snapshot) -> None:
        """Bills the interval since the last one. SbpTuneError for readings that cannot be true."""
        last, node = self.last, self.inventory.node
        self._failures |= {f"node {node}: {device}: {why}": None for device, why in now.failures.items()}
        if last is not None and now.time < last.time:
            raise SbpTuneError(f"node {node}: a snapshot of {now.time:.3f} s after one of {last.time:.3f} s")
        if last is not None and now.time == last.time:
            self._merge(last, now)
            return
        if last is not None and self._gap:
            self.leases.lose(alive=now.leases)
        marked = self.leases.marked(now.time)
        if last is not None and not self._gap:
            self._use(last, now)
        for uuid, info in self.inventory.gpus.items():
            self._gpu(uuid, info, now)
        self._cpu(now)
        self._ram(now)
        for state, joules in marked:
            _resolve(state, joules, last, now)
        self.last, self._gap = now, False
        self.leases.billed(now)

    def warnings(self) -> list[str]:
        """What does not fit together, and what could not be read; one line each."""
        node = self.inventory.node
        found = [f"node {node}: the opening of lease {lease} is not in the ledger" for lease in self.leases.strangers()]
        return [*found, *self._failures, *(line for check in self._cross_checks.values() if (line := check.warning()))]

    def _look_around(self) -> None:
        """A new inventory: gates for its devices, and what it cannot measure."""
        inventory = self.inventory
        names = {uuid: f"GPU {uuid} ({info.name})" for uuid, info in inventory.gpus.items()}
        processor, memory = f"processor of node {inventory.node}", f"memory of node {inventory.node}"
        self._cpu_power = PowerGate(processor, "energy counter", inventory.cpu_limit_w)
        self._power: dict[str, PowerGate] = {}
        self._still: dict[str, StillGate] = {}
        for uuid, info in inventory.gpus.items():
            reading = "energy counter" if info.source == "counter" else "power reading"
            self._power[uuid] = PowerGate(names[uuid], reading, info.limit_w, info.update_s)
            self._still[uuid] = StillGate(names[uuid], reading)
            self._cross_checks.setdefault(uuid, CrossCheck(names[uuid]))
        missing = [names[uuid] for uuid, info in inventory.gpus.items() if info.source == "none"]
        missing += [processor] if (inventory.cpu_source, inventory.cpu_included_in) == ("none", None) else []
        missing += [memory] if (inventory.ram_source, inventory.ram_included_in) == ("none", None) else []
        self.not_measured |= dict.fromkeys(missing)

    def _merge(self, last: Snapshot, now: Snapshot) -> None:
        """Two lease edges at the same time: counters as first read, memory as last, and the leases of both."""
        leases = {lease: replace(now.leases.get(lease, use), cpu_s=use.cpu_s) for lease, use in last.leases.items()}
        both = replace(
            last,
            gpu_j=_first_known(last.gpu_j, now.gpu_j),
            cpu_j=now.cpu_j if last.cpu_j is None else last.cpu_j,
            dram_j=now.dram_j if last.dram_j is None else last.dram_j,
            used_gb=now.used_gb,
            leases={**now.leases, **leases},
            gpu_power_j=_first_known(last.gpu_power_j, now.gpu_power_j),
        )
        self._since = {device: both if since is last else since for device, since in self._since.items()}
        self.last = both

    def _advance(self, device: str, now: Snapshot) -> Snapshot | None:
        """The snapshot with the device's last reading, after which `now` has the next; None at the first."""
        since = self._since.get(device)
        if since is not None and since.time >= now.time:
            return None
        self._since[device] = now
        return since

    def _use(self, last: Snapshot, now: Snapshot) -> None:
        self.seconds.add(now.time - last.time)
        _ahead(last.busy_cpu_s, now.busy_cpu_s, f"node {self.inventory.node}: busy CPU time")
        for lease, (state, seconds) in self.leases.held(last, now).items():
            if lease in last.leases and lease in now.leases:
                state.cpu_seconds.add(_cpu_s(lease, last, now))
                state.cover("use", seconds)

    def _gpu(self, uuid: str, info: GpuInfo, now: Snapshot) -> None:
        reading = now.gpu_j.get(uuid)
        if info.source == "none" or reading is None:
            return
        since = self._advance(uuid, now)
        before = since.gpu_j.get(uuid) if since is not None else None
        if since is None or before is None:
            return
        seconds, carried = now.time - since.time, uuid in self._carried
        self._carried.discard(uuid)
        if reading < before and carried:
            return  # the driver was loaded again while nobody looked
        joules = _ahead(before, reading, f"GPU {uuid} ({info.name}): energy")
        held = self.leases.held(since, now)
        holds = {
            lease: GpuHold(state.opened.gpus[uuid], during / seconds, _busy_s(lease, uuid, since, now))
            for lease, (state, during) in held.items()
            if uuid in state.opened.gpus
        }
        self._check_gpu(uuid, since, now, joules, holds)
        for lease in holds:
            state, during = held[lease]
            state.cover(uuid, during)
            state.shared |= is_shared(holds)
        shares = split_gpu(joules, (info.idle_w or 0.0) * seconds, holds)
        self._book("gpu", info.source, info.uncertainty, joules, shares)

    def _check_gpu(
        self, uuid: str, since: Snapshot, now: Snapshot, joules: float, holds: Mapping[str, GpuHold]
    ) -> None:
        seconds = now.time - since.time
        self._power[uuid].add(since.time, now.time, joules)
        used_s = sum(hold.during * seconds if hold.busy_s is None else hold.busy_s for hold in holds.values())
        self._still[uuid].add(min(used_s, seconds), joules)
        before, after = since.gpu_power_j.get(uuid), now.gpu_power_j.get(uuid)
        if before is not None and after is not None and after >= before:  # it starts afresh after a gap
            self._cross_checks[uuid].add(seconds, joules, after - before)

    def _cpu(self, now: Snapshot) -> None:
        inventory, source = self.inventory, self.inventory.cpu_source
        if source == "none" or (source != "model" and now.cpu_j is None):
            return
        since = self._advance("cpu", now)
        if since is None:
            return
        seconds, busy_s = now.time - since.time, now.busy_cpu_s - since.busy_cpu_s
        if source == "model":
            joules = cpu_joules(seconds, busy_s, inventory.cpus, inventory.cpu_idle_w, inventory.cpu_busy_w)
        else:
            joules = _ahead(since.cpu_j, now.cpu_j, f"node {inventory.node}: energy of the processor")
            self._cpu_power.add(since.time, now.time, joules)
        holds: dict[str, CpuHold] = {}
        for lease, (state, during) in self.leases.held(since, now).items():
            seen = lease in since.leases and lease in now.leases
            holds[lease] = CpuHold(state.opened.cpus, during / seconds, _cpu_s(lease, since, now) if seen else 0.0)
            state.cover("cpu", during if seen else 0.0)
        idle_j = cpu_joules(seconds, 0.0, inventory.cpus, inventory.cpu_idle_w, 0.0)
        shares = split_cpu(joules, idle_j, inventory.cpus, busy_s, holds)
        self._book("cpu", source, inventory.cpu_uncertainty, joules, shares)

    def _ram(self, now: Snapshot) -> None:
        inventory, source = self.inventory, self.inventory.ram_source
        if source == "none" or (source != "model" and now.dram_j is None):
            return
        since = self._advance("ram", now)
        if since is None:
            return
        seconds = now.time - since.time
        if source == "model":
            joules = ram_joules(inventory.ram_gb * seconds, inventory.ram_w_per_gb)
        else:
            joules = _ahead(since.dram_j, now.dram_j, f"node {inventory.node}: energy of the memory")
        holds: dict[str, float] = {}
        for lease, (state, during) in self.leases.held(since, now).items():
            if lease in since.leases:
                holds[lease] = since.leases[lease].memory_gb * during / seconds
                state.cover("ram", during)
        shares = split_ram(joules, inventory.ram_gb, since.used_gb, holds)
        self._book("ram", source, inventory.ram_uncertainty, joules, shares)

    def _book(
        self, component: str, source: Source, uncertainty: float | None, joules: float, shares: Shares[str]
    ) -> None:
        error = uncertainty or 0.0  # an inventory gives one for every source
        self.machine.add(component, source, joules, error)
        self.idle.add(component, source, shares.idle, error)
        if component != "gpu":  # nothing runs on a GPU that no lease has
            self.other.add(component, source, shares.other, error)
        for lease, part in shares.leases.items():
            self.leases.states[lease].account.add(component, source, part, error)


def _resolve(state: LeaseState, before: float, last: Snapshot | None, now: Snapshot) -> None:
    """The energy at the ends of epochs that a snapshot has passed, in proportion to time between snapshots."""
    after = state.account.joules
    for mark in state.unmarked(now.time):
        done = 1.0 if last is None else min(1.0, max(0.0, (mark.time - last.time) / (now.time - last.time)))
        state.joules[mark.epoch] = before + (after - before) * done


def _first_known(one: Mapping[str, Value | None], other: Mapping[str, Value | None]) -> dict[str, Value | None]:
    return {**other, **{key: value for key, value in one.items() if value is not None}}


def _ahead(before: float | None, now: float | None, what: str) -> float:
    """How far a counter has moved; both readings are there."""
    assert before is not None and now is not None
    if now < before:
        raise SbpTuneError(f"{what} went backwards, from {before:.3f} to {now:.3f}")
    return now - before


def _cpu_s(lease: str, since: Snapshot, now: Snapshot) -> float:
    return _ahead(since.leases[lease].cpu_s, now.leases[lease].cpu_s, f"lease {lease}: CPU seconds")


def _busy_s(lease: str, uuid: str, since: Snapshot, now: Snapshot) -> float | None:
    """Seconds in which a lease ran kernels; None where that cannot be told."""
    if lease not in since.leases or lease not in now.leases:
        return None
    before, after = since.leases[lease].gpu_busy_s.get(uuid), now.leases[lease].gpu_busy_s.get(uuid)
    return None if before is None or after is None else max(0.0, after - before)
