"""What a search has used, line by line: trials and their attempts, and what no trial can be charged with.

Energy only: CO2 and PUE come later, in `carbon`. Every line keeps measured and modelled kWh apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sbp_tune.energy.account import combine
from sbp_tune.energy.reading import Component
from sbp_tune.energy.records import Gap, LeaseOpened, Reason

COVERAGE = 0.99
SHORT_S = 20.0  # 200 updates of a GPU's counter: the edges of a window are then half a percent of it


@dataclass(frozen=True)
class Line:
    """Energy by component: `gpu` (absent where no GPU was held), `cpu`, `ram`.

    measured_kwh, modelled_kwh: sums of all that hardware said and that formulas say, also of a component that has
    no number because a part of it could not be read.
    """

    components: dict[str, Component]
    measured_kwh: float
    modelled_kwh: float

    @property
    def kwh(self) -> float | None:
        """Of all components; None if one has no source, since a sum without it would pass for a cheap run."""
        parts = [part.kwh for part in self.components.values() if part.kwh is not None]
        return math.fsum(parts) if len(parts) == len(self.components) else None

    @property
    def known_kwh(self) -> float:
        """Of all that has a source; the sums of these, and of no others, make the machine's."""
        return self.measured_kwh + self.modelled_kwh


@dataclass(frozen=True)
class AttemptBill(Line):
    """One lease.

    opened, ended: node's monotonic s, `ended` the last snapshot's while it is open, when reason is None;
    cpu_seconds: of its process tree; coverage: of its time, the part with readings of every component that has a
    source; epochs: kWh from its opening, by epochs finished; checkpoints: those of them to continue from;
    kwh_wasted: beyond the checkpoint that the next attempt continued from, all of it if that one began afresh, 0 in
    the last attempt. kWh that cannot be told are None.
    """

    node: str
    lease: LeaseOpened
    opened: float
    ended: float
    reason: Reason | None
    cpu_seconds: float
    coverage: float
    shared: bool
    epochs: dict[int, float | None]
    checkpoints: dict[int, float | None]
    kwh_wasted: float | None = 0.0

    @property
    def seconds(self) -> float:
        """From opening to end."""
        return self.ended - self.opened

    @property
    def well_covered(self) -> bool:
        """Whether its number is of nearly all its time."""
        return self.coverage >= COVERAGE

    @property
    def too_short_to_rank(self) -> bool:
        """Whether the edges of its window blur its number too much to compare it with others."""
        return self.seconds < SHORT_S


@dataclass(frozen=True)
class TrialBill(Line):
    """All attempts of a trial, in their order.

    epochs: kWh of the trial up to the end of an epoch, earlier attempts in full, whatever they wasted; an epoch that
    was repeated counts as of its last time.
    """

    attempts: tuple[AttemptBill, ...]
    epochs: dict[int, float | None]
    kwh_wasted: float | None

    @property
    def seconds(self) -> float:
        return math.fsum(attempt.seconds for attempt in self.attempts)

    @property
    def cpu_seconds(self) -> float:
        return math.fsum(attempt.cpu_seconds for attempt in self.attempts)

    @property
    def coverage(self) -> float:
        """As an attempt's."""
        seconds = self.seconds
        return math.fsum(part.coverage * part.seconds for part in self.attempts) / seconds if seconds else 1.0

    @property
    def well_covered(self) -> bool:
        """As an attempt's."""
        return self.coverage >= COVERAGE

    @property
    def too_short_to_rank(self) -> bool:
        """As an attempt's: each attempt has edges of its own."""
        return self.seconds < SHORT_S * len(self.attempts)

    @property
    def shared(self) -> bool:
        """Whether a GPU was divided by a rule."""
        return any(attempt.shared for attempt in self.attempts)


@dataclass(frozen=True)
class Bill:
    """Everything: the trials, the driver, other processes and what was idle sum to the machine.

    trials: by trial; driver: leases without a trial, of the search and of setting trials up; idle: GPUs, cores and
    memory that nobody held; other: work and memory of processes outside all leases; machine: all nodes, as read;
    not_measured: devices in none of these numbers; seconds: with readings, summed over nodes; gaps: when nobody
    metered; warnings: one line each.
    """

    trials: dict[str, TrialBill]
    driver: Line
    idle: Line
    other: Line
    machine: Line
    seconds: float
    not_measured: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    warnings: tuple[str, ...] = ()


def trial_bill(attempts: Sequence[AttemptBill]) -> tuple[TrialBill, list[str]]:
    """The bill of one trial, with the waste of its attempts filled in; and warnings."""
    attempts = sorted(attempts, key=lambda attempt: attempt.lease.attempt)
    attempts, warnings = _with_waste(attempts)
    names = dict.fromkeys(name for attempt in attempts for name in attempt.components)
    components = {
        name: combine(part.components[name] for part in attempts if name in part.components) for name in names
    }
    wasted = [attempt.kwh_wasted for attempt in attempts if attempt.kwh_wasted is not None]
    trial = TrialBill(
        components,
        math.fsum(attempt.measured_kwh for attempt in attempts),
        math.fsum(attempt.modelled_kwh for attempt in attempts),
        tuple(attempts),
        _cumulative(attempts),
        math.fsum(wasted) if len(wasted) == len(attempts) else None,
    )
    return trial, warnings


def _cumulative(attempts: Sequence[AttemptBill]) -> dict[int, float | None]:
    epochs: dict[int, float | None] = {}
    before: float | None = 0.0
    for attempt in attempts:
        kept = {epoch: kwh for epoch, kwh in epochs.items() if epoch <= attempt.lease.continued_epoch}
        epochs = kept | {epoch: _plus(before, kwh) for epoch, kwh in sorted(attempt.epochs.items())}
        before = _plus(before, attempt.kwh)
    return epochs


def _plus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _with_waste(attempts: Sequence[AttemptBill]) -> tuple[list[AttemptBill], list[str]]:
    """From the last attempt, which wasted nothing yet, back along the checkpoints that led to it."""
    done = list(attempts[-1:])
    needed = done[0].lease.continued_epoch
    warnings: list[str] = []
    for attempt in reversed(attempts[:-1]):
        used: float | None = 0.0
        if needed and needed in attempt.checkpoints:
            used, needed = attempt.checkpoints[needed], attempt.lease.continued_epoch
        wasted = None if attempt.kwh is None or used is None else max(0.0, attempt.kwh - used)
        done.insert(0, replace(attempt, kwh_wasted=wasted))
    if needed:
        lease = done[0].lease
        warnings.append(
            f"trial {lease.trial}: no attempt in the ledger has a checkpoint of epoch {needed} to continue from: "
            "what came before counts as wasted"
        )
    return done, warnings
