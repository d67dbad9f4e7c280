"""An open lease as its node's meter follows it: what the processes that it is of have used."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sbp_tune.energy.counters.machine import MachineReading
from sbp_tune.energy.process import ProcessTree
from sbp_tune.energy.records import LeaseOpened, LeaseUse

MEMORY_PERIOD_S = 5.0


class LivingLease:
    """An open lease and the process tree that it is of.

    Of the search itself only its own process: on one machine Ray's daemons, and with them the trials, descend from
    it.
    """

    def __init__(self, opened: LeaseOpened, age_s: float = 0.0) -> None:
        self.opened = opened
        self.tree = ProcessTree(opened.pid, descendants=opened.trial is not None, age_s=age_s)
        self._busy: dict[str, float | None] = {}
        self._first_busy: dict[str, float | None] | None = None
        self._memory_gb, self._memory_due = 0.0, -math.inf

    def read(self, reading: MachineReading) -> LeaseUse:
        """What it has used until now."""
        cpu_s = self.tree.cpu_seconds()
        if reading.time >= self._memory_due:  # reading it stops the process for a moment
            self._memory_gb, self._memory_due = self.tree.memory_gb(), reading.time + MEMORY_PERIOD_S
        # NVML tells how busy a GPU is, not with whose work: a shared one is split by fraction.
        whole = [uuid for uuid, fraction in self.opened.gpus.items() if fraction == 1]
        self._busy = {uuid: reading.gpu_busy_s.get(uuid) for uuid in whole}
        if self._first_busy is None:
            self._first_busy = self._busy
        return LeaseUse(cpu_s, self._memory_gb, self._busy)

    @property
    def busy_s(self) -> float | None:
        """Mean over its GPUs of the seconds in which a kernel ran; None without GPU, or where one does not tell."""
        seconds = [_since(self._first_busy or {}, self._busy, uuid) for uuid in self.opened.gpus]
        known = [value for value in seconds if value is not None]
        return sum(known) / len(known) if known and len(known) == len(seconds) else None


def _since(first: Mapping[str, float | None], last: Mapping[str, float | None], uuid: str) -> float | None:
    before, after = first.get(uuid), last.get(uuid)
    return None if before is None or after is None else after - before
