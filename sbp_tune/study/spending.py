"""What the trials of a study have used so far, by the rows that they reported: nothing that was spent is left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any


@dataclass
class Spent:
    """What one trial has used over all its attempts.

    kwh: epochs that were run twice count twice; lost_kwh: beyond what it reported (an epoch that a crash cut);
    seconds: wall time of its `rows` epochs; at: kWh that it had reported by the end of each epoch.
    """

    kwh: float = 0.0
    lost_kwh: float = 0.0
    seconds: float = 0.0
    rows: int = 0
    at: dict[int, float] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """The last epoch that was finished."""
        return max(self.at, default=0)

    @property
    def epoch_kwh(self) -> float | None:
        """kWh of an epoch, on average; None before the first and where nothing is measured."""
        return self.at[self.done] / self.done if self.at and self.at[self.done] > 0 else None

    @property
    def epoch_s(self) -> float | None:
        """Wall time of an epoch, on average; None before the first."""
        return self.seconds / self.rows if self.rows else None


class Spending:
    """All trials of a study by number."""

    def __init__(self) -> None:
        self.trials: dict[int, Spent] = {}
        self._kwh = 0.0

    @property
    def kwh(self) -> float:
        """kWh of all trials: complete, stopped, failed and running, with what their crashes wasted."""
        return self._kwh

    def of(self, number: int) -> float:
        """kWh of one trial."""
        spent = self.trials.get(number)
        return 0.0 if spent is None else spent.kwh + spent.lost_kwh

    def add(self, number: int, row: dict[str, Any]) -> None:
        """Takes up a row as it was reported: kwh is cumulative from the checkpoint from which its attempt went on."""
        spent = self.trials.setdefault(number, Spent())
        epoch, kwh = int(row["epoch"]), row.get("kwh") or 0.0
        earlier = {e: value for e, value in spent.at.items() if e < epoch}
        more = max(kwh - (earlier[max(earlier)] if earlier else 0.0), 0.0)
        spent.at = earlier | {epoch: kwh}
        spent.kwh += more
        spent.seconds += row.get("time_this_iter_s") or 0.0
        spent.rows += 1
        self._kwh += more

    def bill(self, number: int, kwh: float) -> None:
        """What the ledger says of a trial that does not run: more than it reported if a crash cut an epoch."""
        spent = self.trials.setdefault(number, Spent())
        lost = max(kwh - spent.kwh, 0.0)
        self._kwh += lost - spent.lost_kwh
        spent.lost_kwh = lost


def elapsed_s(starts: Sequence[Sequence[float]], reported: Iterable[float]) -> float:
    """Wall time of a study over its starts, in s: pairs of when one began and when it ended as far as was noted.

    A crash notes no end: then the last report before the next start is it. Unix times all.
    """
    times = sorted(reported)
    total = 0.0
    for (began, ended), (later, _) in pairwise([*starts, (inf, inf)]):
        last = max((time for time in times if began <= time < later), default=began)
        total += max(ended, last) - began
    return total
