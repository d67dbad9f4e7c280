"""How the energy of one interval is shared among those who held a part of the machine.

Every rule gives parts that are at least 0 and, with what is left over, sum to the energy. Each is additive: an
interval cut in two, with the same rates in both, gives the same sums. `during` is the share of the interval, 0 to 1,
in which a lease was open; it is 1 where snapshots are taken at lease edges, as they should be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

Lease = TypeVar("Lease")


@dataclass(frozen=True)
class GpuHold:
    """A lease's part of a GPU: the fraction it was given, and for how many seconds it ran kernels, if known."""

    fraction: float
    during: float
    busy_s: float | None


@dataclass(frozen=True)
class CpuHold:
    """A lease's part of the processor: the cores it was given, and the CPU seconds it used."""

    cores: float
    during: float
    cpu_s: float


@dataclass(frozen=True)
class Shares(Generic[Lease]):
    """Joules of each lease; of what was idle in nobody's name; and of what ran, but not in a lease."""

    leases: dict[Lease, float]
    idle: float
    other: float


def is_shared(holds: Mapping[Lease, GpuHold]) -> bool:
    """Whether a GPU's energy must be divided by a rule: one lease has not all of it, or several have it at once."""
    return any(hold.fraction < 1 for hold in holds.values()) or math.fsum(h.during for h in holds.values()) > 1 + 1e-9


def split_gpu(joules: float, idle_j: float, holds: Mapping[Lease, GpuHold]) -> Shares[Lease]:
    """A GPU's energy; idle_j: what it would have drawn without any work.

    Whoever has it alone gets all of it, idle included, since no other could use it. Else idle energy goes by
    fraction, what is left of it to `idle`, and the rest by busy time, or by fraction where that is not known of all.
    """
    if not is_shared(holds):
        parts = {lease: joules * hold.during for lease, hold in holds.items()}
        return Shares(parts, _rest(joules, parts.values()), 0.0)
    still = min(joules, idle_j)
    given = {lease: hold.fraction * hold.during for lease, hold in holds.items()}
    promised = max(1.0, math.fsum(given.values()))
    work = (joules - still) * max(hold.during for hold in holds.values())
    busy = {lease: hold.busy_s for lease, hold in holds.items() if hold.busy_s is not None}
    weights = busy if len(busy) == len(holds) and any(busy.values()) else given
    weight = math.fsum(weights.values())
    parts = {lease: still * given[lease] / promised + work * weights[lease] / weight for lease in holds}
    return Shares(parts, _rest(joules, parts.values()), 0.0)


def split_cpu(joules: float, idle_j: float, cores: int, busy_s: float, holds: Mapping[Lease, CpuHold]) -> Shares[Lease]:
    """The processor's energy; idle_j: of the idle machine; cores: it has; busy_s: CPU seconds of the whole machine.

    Idle energy goes by reserved cores out of all cores, not out of those reserved, so that a lease's number does not
    depend on its neighbours; the rest by CPU seconds, likewise. Where more is promised or used than there is (CPU
    clocks disagree by a tick), all get proportionally less.
    """
    still = min(joules, idle_j)
    reserved = {lease: hold.cores * hold.during for lease, hold in holds.items()}
    of = max(float(cores), math.fsum(reserved.values()))
    busy = max(busy_s, math.fsum(hold.cpu_s for hold in holds.values()))
    work = joules - still
    kept = {lease: still * reserved[lease] / of for lease in holds}
    done = {lease: work * hold.cpu_s / busy if busy > 0 else 0.0 for lease, hold in holds.items()}
    parts = {lease: kept[lease] + done[lease] for lease in holds}
    return Shares(parts, _rest(still, kept.values()), _rest(work, done.values()))


def split_ram(joules: float, ram_gb: float, used_gb: float, holds: Mapping[Lease, float]) -> Shares[Lease]:
    """The memory's energy by GB in use out of GB installed; what no process uses is `idle`."""
    held = math.fsum(holds.values())
    of = max(ram_gb, held)
    parts = {lease: joules * gb / of for lease, gb in holds.items()}
    left = _rest(joules, parts.values())
    other = min(left, joules * max(0.0, used_gb - held) / of)
    return Shares(parts, left - other, other)


def _rest(whole: float, parts: Iterable[float]) -> float:
    return max(0.0, whole - math.fsum(parts))
