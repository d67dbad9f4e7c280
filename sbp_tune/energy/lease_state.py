"""What has been billed to one lease so far, and the line of the bill that it makes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

from sbp_tune.energy.account import Account, Sum
from sbp_tune.energy.bill import AttemptBill
from sbp_tune.energy.reading import JOULES_PER_KWH, Component
from sbp_tune.energy.records import EpochMark, Inventory, LeaseClosed, LeaseOpened, Reason

_REASONS: tuple[Reason, ...] = ("finished", "stopped", "failed", "died")


@dataclass
class LeaseState:
    """lost: when a gap began that it did not outlive; covered: seconds with readings, by GPU, `cpu`, `ram` and `use`.

    joules: at the end of an epoch, for the marks that a snapshot has passed.
    """

    opened: LeaseOpened
    closed: LeaseClosed | None = None
    lost: float | None = None
    account: Account = field(default_factory=Account)
    cpu_seconds: Sum = field(default_factory=Sum)
    covered: dict[str, Sum] = field(default_factory=dict)
    marks: dict[int, EpochMark] = field(default_factory=dict)
    joules: dict[int, float] = field(default_factory=dict)
    shared: bool = False

    @property
    def ended(self) -> float:
        """Infinite while it is open."""
        if self.lost is not None:
            return self.lost
        return math.inf if self.closed is None else self.closed.time

    def overlap(self, start: float, end: float) -> float:
        """Seconds of an interval in which it was open."""
        return max(0.0, min(end, self.ended) - max(start, self.opened.time))

    def cover(self, what: str, seconds: float) -> None:
        self.covered.setdefault(what, Sum()).add(seconds)

    def unmarked(self, until: float) -> list[EpochMark]:
        """Ends of epochs up to a time, whose energy is not yet known."""
        return [mark for epoch, mark in self.marks.items() if epoch not in self.joules and mark.time <= until]

    def line(self, inventory: Inventory, now: float) -> AttemptBill:
        """Its line of the bill, at the time of the last snapshot of the node with this inventory."""
        ended = max(self.opened.time, now if self.ended == math.inf else self.ended)
        seconds = ended - self.opened.time
        gpus = self.opened.gpus
        needs = {"gpu": list(gpus), "cpu": ["cpu"], "ram": ["ram"]}
        within = {"gpu": not gpus, "cpu": inventory.cpu_included_in in gpus, "ram": inventory.ram_included_in in gpus}
        components = {name: self._component(name, needs[name]) for name in needs if not within[name]}
        if "gpu" in components:
            late_s = max((inventory.gpus[uuid].update_s for uuid in gpus if uuid in inventory.gpus), default=0.0)
            components["gpu"] = _with_edges(components["gpu"], late_s / seconds if seconds else 1.0)
        whole = all(part.kwh is not None for part in components.values())
        covered = ["use", *(what for name, part in components.items() if part.kwh is not None for what in needs[name])]
        epochs = {
            epoch: self.joules.get(epoch, self.account.joules) / JOULES_PER_KWH if whole else None
            for epoch in sorted(self.marks)
        }
        lost: Reason | None = "died" if self.lost is not None else None
        return AttemptBill(
            components,
            self.account.measured_kwh,
            self.account.modelled_kwh,
            node=inventory.node,
            lease=self.opened,
            opened=self.opened.time,
            ended=ended,
            reason=self.closed.reason if self.closed is not None else lost,
            cpu_seconds=self.cpu_seconds.value,
            coverage=min(1.0, *(self._covered(what) / seconds for what in covered)) if seconds else 1.0,
            shared=self.shared,
            epochs=epochs,
            checkpoints={epoch: kwh for epoch, kwh in epochs.items() if self.marks[epoch].checkpointed},
        )

    def _covered(self, what: str) -> float:
        return self.covered[what].value if what in self.covered else 0.0

    def _component(self, name: str, needs: list[str]) -> Component:
        if not all(self._covered(what) > 0 for what in needs):
            return Component(None, "none", None)
        return self.account.component(name)


def _with_edges(part: Component, of_window: float) -> Component:
    """A component whose reading may be late by such a part of the window at its edges."""
    if part.uncertainty is None:
        return part
    return dataclasses.replace(part, uncertainty=min(1.0, part.uncertainty + of_window))


def earlier_close(one: LeaseClosed | None, other: LeaseClosed) -> LeaseClosed:
    """Of two ends of the same lease the one that counts, whichever was written first."""
    if one is None:
        return other
    return min(one, other, key=lambda closed: (closed.time, _REASONS.index(closed.reason)))
