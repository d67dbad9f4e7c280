"""NodeMeter: the one meter of a machine, whoever runs on it.

It takes a snapshot of all counters every second and at both ends of every lease, writes it into the node's ledger,
and bills it by the same rules by which the ledger is read later: what a trial is told while it runs and what the
ledger says of it are one number.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sbp_tune.energy.attribution import Attribution
from sbp_tune.energy.bill import Bill
from sbp_tune.energy.counters.gpu import UPDATE_PERIOD_S
from sbp_tune.energy.counters.machine import MachineCounters, MachineReading
from sbp_tune.energy.living_lease import LivingLease
from sbp_tune.energy.reading import Reading
from sbp_tune.energy.records import (
    EpochMark,
    GpuInfo,
    Inventory,
    LeaseClosed,
    LeaseOpened,
    LeaseUse,
    Reason,
    Record,
    Snapshot,
)
from sbp_tune.energy.repeater import Repeater
from sbp_tune.errors import SbpTuneError

if TYPE_CHECKING:
    from sbp_tune.energy.ledger import LedgerWriter

SNAPSHOT_PERIOD_S = 1.0


class NodeMeter:
    """Meters a machine from construction until `stop`. Methods may be called from any thread.

    node: its name in the ledger; folder: of the ledger, None to keep none; counters: what it reads; clock: s,
    monotonic, the counters' own; period: s between snapshots. On a folder with a ledger of this node it goes on:
    leases whose process still runs stay open, the others are closed where they were last seen. A reading that
    cannot be true raises SbpTuneError, then and ever after; so does a ledger that cannot be written.
    """

    def __init__(
        self,
        node: str,
        folder: Path | None,
        counters: MachineCounters | None = None,
        *,
        period: float = SNAPSHOT_PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters = counters or MachineCounters(clock=clock)
        self._clock, self._lock = clock, threading.RLock()
        self._attribution = Attribution()
        self._leases: dict[str, LivingLease] = {}
        self._seen = -math.inf  # when the last snapshot was taken
        self._failure: SbpTuneError | None = None
        self._inventory = _inventory(node, self._counters, clock())
        self._ledger: LedgerWriter | None = None
        records: Iterable[Record] = [self._inventory]
        if folder is not None:
            self._ledger, records = _ledger(folder, self._inventory)
        for record in records:
            self._attribution.add(record)
            if isinstance(record, Snapshot):
                self._seen = record.time
        self._continue()
        self._repeaters = [Repeater(period, self._tick)]
        if self._counters.sampled:
            self._repeaters.append(Repeater(UPDATE_PERIOD_S, self._counters.sample))

    def open(
        self,
        lease: str,
        trial: str | None,
        *,
        attempt: int = 0,
        pid: int | None = None,
        gpus: Mapping[str, float] | None = None,
        cpus: float = 0.0,
        continued_epoch: int = 0,
    ) -> None:
        """A lease of a process tree begins now. See `LeaseOpened`; pid: this process by default.

        Opening a lease again that is open changes nothing. Synchronise the GPU before: work still queued would be
        billed here. SbpTuneError for a process that is gone.
        """
        pid = os.getpid() if pid is None else pid
        with self._lock:
            self._tick()  # a lease whose process died gives its GPU back before another takes it
            self._check()
            if lease in self._leases:
                return
            opened = LeaseOpened(lease, trial, attempt, self._clock(), dict(gpus or {}), cpus, pid, continued_epoch)
            self._leases[lease] = LivingLease(opened)
            snapshot = self._snapshot()
            self._record(replace(opened, time=snapshot.time))
            self._record(snapshot)

    def mark(self, lease: str, epoch: int, checkpointed: bool) -> Reading:
        """A trial has finished an epoch (so many in all); what its lease has used. Synchronise the GPU before."""
        with self._lock:
            self._check(lease)
            snapshot = self._snapshot()
            self._record(EpochMark(lease, snapshot.time, epoch, checkpointed))
            self._record(snapshot)
            return self._reading(lease)

    def read(self, lease: str) -> Reading:
        """What a lease has used until now, or until it ended."""
        with self._lock:
            self._check()
            if lease in self._leases:
                self._record(self._snapshot())
            return self._reading(lease)

    def close(self, lease: str, reason: Reason) -> Reading:
        """A lease ends now; all that it has used. Closing it again changes nothing."""
        with self._lock:
            self._check()
            if lease not in self._leases:
                return self._reading(lease)
            snapshot = self._snapshot()
            self._record(LeaseClosed(lease, snapshot.time, reason))
            self._record(snapshot)
            reading = self._reading(lease)
            self._forget(lease)
            return reading

    def close_attempt(self, trial: str, attempt: int, reason: Reason) -> None:
        """What is open of one attempt of a trial ends now: for who does not know the name of its lease."""
        with self._lock:
            for lease, living in list(self._leases.items()):
                if (living.opened.trial, living.opened.attempt) == (trial, attempt):
                    self.close(lease, reason)

    @property
    def leases(self) -> list[str]:
        """Those that are open."""
        with self._lock:
            return list(self._leases)

    def bill(self) -> Bill:
        """Everything this ledger has, up to now."""
        with self._lock:
            self._check()
            self._record(self._snapshot())
            return self._attribution.bill()

    def stop(self) -> None:
        """Ends the background threads after a last snapshot, and lets go of the ledger. Leases stay as they are."""
        with self._lock:
            repeaters, self._repeaters = self._repeaters, []
        for repeater in repeaters:  # outside the lock: a running call may be waiting for it
            repeater.stop()
        with self._lock:
            if repeaters:
                self._tick()
            if self._ledger is not None:
                self._ledger.close()

    def _tick(self) -> None:
        """A snapshot; leases whose process is gone end where they were last seen."""
        with self._lock:
            if self._failure is not None:
                return
            try:
                for lease in [lease for lease, living in self._leases.items() if not living.tree.alive()]:
                    self._record(LeaseClosed(lease, self._seen, "died"))
                    self._forget(lease)
                self._record(self._snapshot())
            except SbpTuneError as error:  # nobody would see it on this thread: told to the next who asks
                self._failure = error
            except Exception as error:  # nor that the thread has ended, and nobody is metered any more
                self._failure = SbpTuneError(f"the meter failed: {type(error).__name__}: {error}")

    def _continue(self) -> None:
        """Leases of an earlier meter on this node whose process lives are followed again.

        Not one whose pid is another's by now: that began after the lease.
        """
        for opened in self._attribution.open_leases():
            try:
                self._leases[opened.lease] = LivingLease(opened, age_s=self._clock() - opened.time)
            except SbpTuneError:
                self._record(LeaseClosed(opened.lease, max(self._seen, opened.time), "died"))
        self._record(self._snapshot())

    def _snapshot(self) -> Snapshot:
        reading = self._counters.read()
        return Snapshot(
            time=reading.time,
            wall=time.time(),
            gpu_j=reading.gpu_j,
            cpu_j=reading.cpu_j,
            dram_j=reading.dram_j,
            busy_cpu_s=reading.busy_cpu_s,
            used_gb=reading.used_gb,
            leases=self._use(reading),
            gpu_power_j=reading.gpu_power_j,
            failures=reading.failures,
        )

    def _use(self, reading: MachineReading) -> dict[str, LeaseUse]:
        return {lease: living.read(reading) for lease, living in self._leases.items()}

    def _record(self, record: Record) -> None:
        """To the disk first: what has been told to anybody can be read again."""
        try:
            if self._ledger is not None:
                self._ledger.append(record)
            self._attribution.add(record)
        except SbpTuneError as error:  # what is missing there cannot be made up for
            self._failure = error
            raise
        if isinstance(record, Snapshot):
            self._seen = record.time

    def _forget(self, lease: str) -> None:
        del self._leases[lease]

    def _reading(self, lease: str) -> Reading:
        line, living = self._attribution.attempt(lease), self._leases.get(lease)
        return Reading(line.components, line.seconds, line.cpu_seconds, None, living.busy_s if living else None)

    def _check(self, lease: str | None = None) -> None:
        if self._failure is not None:
            raise self._failure
        if lease is not None and lease not in self._leases:
            raise SbpTuneError(f"lease {lease} has ended: its process was gone, or it was closed")


def _ledger(folder: Path, inventory: Inventory) -> tuple[LedgerWriter, Iterable[Record]]:
    """The node's ledger, to go on with, and what is in it."""
    from sbp_tune.energy.ledger import LedgerWriter, read_ledger  # its lock takes longer to import than the meter

    writer = LedgerWriter(folder, inventory)
    # Read back with what the writer has just put there: an earlier meter's records, and the gap since.
    # What is damaged there is left to those who read the bill.
    return writer, read_ledger(folder, damage=[], node=inventory.node)


def _inventory(node: str, counters: MachineCounters, now: float) -> Inventory:
    machine = counters.inventory
    gpus = {
        uuid: GpuInfo(part.name, part.limit_w, part.source, part.uncertainty, machine.gpu_idle_w, part.update_s)
        for uuid, part in machine.gpus.items()
    }
    return Inventory(
        node=node,
        boot=_boot(),
        time=now,
        wall=time.time(),
        gpus=gpus,
        cpus=machine.cpus,
        cpu_source=machine.cpu.source,
        cpu_uncertainty=machine.cpu.uncertainty,
        cpu_idle_w=machine.cpu_idle_w,
        cpu_busy_w=machine.cpu_busy_w,
        ram_source=machine.dram.source,
        ram_uncertainty=machine.dram.uncertainty,
        ram_w_per_gb=machine.ram_w_per_gb,
        ram_gb=machine.ram_gb,
        cpu_limit_w=machine.cpu.limit_w,
        cpu_included_in=machine.cpu.included_in,
        ram_included_in=machine.dram.included_in,
    )


def _boot() -> str:
    """A name of this boot of the machine: monotonic time begins anew with each."""
    file = Path("/proc/sys/kernel/random/boot_id")
    if file.exists():
        return file.read_text(encoding="ascii").strip()
    import psutil

    return f"boot-{psutil.boot_time():.0f}"
