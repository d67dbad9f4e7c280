"""What a budget allows: pure decisions, about numbers that others have collected.

A trial is started only if it and all that run can train to their planned ends within the budget. What a trial will
take is the cost of its epochs as those of the trials most alike came out; before any trial has finished an epoch,
nothing is known, and trials start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from statistics import median
from typing import Any, NamedTuple


class Verdict(Enum):
    """Whether the next trial may start: WAIT if what runs might yet leave room for it, STOP if nothing will."""

    START = "start"
    WAIT = "wait"
    STOP = "stop"


class Amount(NamedTuple):
    """Energy and wall time: a limit, what is used, or what a trial will take; None: no limit, or not known."""

    kwh: float | None
    seconds: float | None


class Run(NamedTuple):
    """A trial as a budget sees it.

    likeness: what it has in common with others, the most telling first; epochs: planned; done: finished so far;
    epoch_kwh, epoch_s: what one of its epochs took, None before the first or where not measured.
    """

    likeness: tuple[str, ...]
    epochs: int
    done: int = 0
    epoch_kwh: float | None = None
    epoch_s: float | None = None


def planned(config: dict[str, Any]) -> Run:
    """A trial before its first epoch, by its complete config: epochs of one network on one data set cost alike."""
    return Run((f"{config['data']} {config['model']}", config["sparsity"]["estimator"]), config["epochs"])


def need(run: Run, seen: Sequence[Run]) -> Amount:
    """What the rest of a trial will take: its planned epochs, each as its own were, or the median of those alike."""
    left = max(run.epochs - run.done, 0)

    def rest(own: float | None, epoch_of: Callable[[Run], float | None]) -> float | None:
        each = own if own is not None else _of_those_alike(run, seen, epoch_of)
        return None if each is None else left * each

    return Amount(rest(run.epoch_kwh, lambda other: other.epoch_kwh), rest(run.epoch_s, lambda other: other.epoch_s))


def _of_those_alike(run: Run, seen: Sequence[Run], epoch_of: Callable[[Run], float | None]) -> float | None:
    """Median over the runs that have most in common with this one; None if no run has the number."""
    for common in range(len(run.likeness), -1, -1):
        alike = [epoch_of(other) for other in seen if other.likeness[:common] == run.likeness[:common]]
        if known := [value for value in alike if value is not None]:
            return median(known)
    return None


def verdict(limits: Amount, used: Amount, needed: Amount, running: Sequence[Amount]) -> Verdict:
    """Whether a trial that needs so much may start beside those that run, each with what it will still take.

    kWh add up over trials; time does not, since they run beside each other. Whatever is not known is taken as
    nothing. STOP is for good: what is used does not come back. It never waits where nothing runs.
    """
    if needed.seconds is not None and _exceeds(limits.seconds, used.seconds, needed.seconds):
        return Verdict.STOP
    if needed.kwh is None:
        return Verdict.START
    if _exceeds(limits.kwh, used.kwh, needed.kwh):
        return Verdict.STOP
    reserved = sum(other.kwh or 0.0 for other in running)
    return Verdict.WAIT if _exceeds(limits.kwh, used.kwh, needed.kwh + reserved) else Verdict.START


def is_used_up(limits: Amount, used: Amount) -> bool:
    """Whether nothing is left, so that even what runs has to stop."""
    return any(
        limit is not None and (amount or 0.0) >= limit
        for limit, amount in ((limits.kwh, used.kwh), (limits.seconds, used.seconds))
    )


def _exceeds(limit: float | None, used: float | None, more: float) -> bool:
    return limit is not None and (used or 0.0) + more > limit
