"""At which epochs a scheduler looks at a trial, and which trials it then compares."""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sbp_tune.study.ranking import ahead

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Ladder:
    """Rungs at grace_period x reduction_factor^(k + bracket) epochs, k = 0, 1, ...; rounded up."""

    grace_period: int
    reduction_factor: float
    brackets: int = 1

    def epochs(self, bracket: int) -> Iterator[int]:
        """Epochs of a bracket's rungs, without end."""
        for power in itertools.count(bracket):
            yield math.ceil(round(self.grace_period * self.reduction_factor**power, 6))

    def below(self, bracket: int, epochs: int) -> list[int]:
        """The rungs of a trial that plans so many epochs; at its end it is not looked at."""
        return list(itertools.takewhile(lambda rung: rung < epochs, self.epochs(bracket)))

    def bracket_of(self, number: int) -> int:
        """The bracket of a trial, by its number alone: a resumed study, or another order of results, changes nothing.

        A bracket that begins `reduction_factor` times later gets as many times fewer trials, spread evenly
        over the numbers by the golden ratio's multiples.
        """
        shares = np.cumsum([self.reduction_factor**-bracket for bracket in range(self.brackets)])
        return int(np.searchsorted(shares, (number * _GOLDEN) % 1 * shares[-1], side="right"))


@dataclass
class Rung:
    """What trials had reported when they reached one epoch: costs, smaller is better, and their horizons.

    The horizon is the epoch by which a trial's plan makes it better without having learnt more: the learning
    rate is down, the steps are dense again. Before that epoch it is at a disadvantage against a trial whose
    plan is shorter, so rivals are those whose horizon is no nearer than one's own.
    """

    objectives: int
    _index: dict[int, int] = field(default_factory=dict)  # trial to row
    _table: array[float] = field(default_factory=lambda: array("d"))  # a row per trial: horizon, costs; grows in place

    @property
    def numbers(self) -> list[int]:
        """The trials, in the order in which they came."""
        return list(self._index)

    def enter(self, number: int, horizon: float, costs: list[float]) -> None:
        """Writes down a trial."""
        self._index[number] = len(self._index)
        self._table.extend([horizon, *costs])

    def rivals(self, number: int) -> NDArray[np.float64]:
        """Costs [trials, objectives] of the trials to compare this one with, itself the last row."""
        rows, own = np.frombuffer(self._table).reshape(-1, self.objectives + 1), self._index[number]
        are_rivals = rows[:, 0] >= rows[own, 0]
        are_rivals[own] = False
        return np.vstack([rows[are_rivals, 1:], rows[own, 1:]])  # a copy: the table can grow again

    def ahead(self, reduction_factor: float, rank: str) -> list[int]:
        """The trials that may go on from here where trials wait, the first first; each compared with its rivals."""
        rows = np.frombuffer(self._table).reshape(-1, self.objectives + 1).copy()
        numbers, places = self.numbers, dict[int, float]()
        for horizon in np.unique(rows[:, 0]):
            rivals = np.flatnonzero(rows[:, 0] >= horizon)
            for place, row in enumerate(ahead(rows[rivals, 1:], reduction_factor, rank)):
                if rows[rivals[row], 0] == horizon:
                    places[numbers[rivals[row]]] = place / len(rivals)
        return sorted(places, key=places.__getitem__)

    def rows(self) -> list[list[float]]:
        """Horizon and costs of each trial, in the order of `numbers`."""
        return np.frombuffer(self._table).reshape(-1, self.objectives + 1).tolist() if self._index else []
