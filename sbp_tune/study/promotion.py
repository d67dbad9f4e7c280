"""Successive halving by promotion: trials wait at each rung, and the best of those that wait go on.

So ASHA is written (Li et al. 2020, arXiv:1810.05934, algorithm 2); which trials are best is MO-ASHA's to say. Where
stopping lets a trial go on until it is behind, here it goes on when it is ahead: the first trials of a study wait for
rivals in place of training unopposed, and one that was passed over is taken up again when its rung has filled. A trial
that goes on is another attempt of its own, from its checkpoint, so nothing is trained twice.
"""

from __future__ import annotations

from typing import Any

from sbp_tune.study.scheduler import MOASHA


class Promotion(MOASHA):
    """Lets a trial wait at each rung until none dominates it there, or it is among the first 1 / reduction_factor."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._ahead: dict[tuple[int, int], tuple[int, list[int]]] = {}  # by rung: how many had come, who may go on

    def next_promoted(self) -> int | None:
        """The first that may go on at the highest rung where one may: it is nearest to its end."""
        by_rung: dict[tuple[int, int], set[int]] = {}
        for number, (bracket, epoch) in self.waiting.items():
            by_rung.setdefault((epoch, bracket), set()).add(number)
        for (epoch, bracket), waiting in sorted(by_rung.items(), reverse=True):
            for number in self._first(bracket, epoch):
                if number in waiting:
                    return number
        return None

    def promote(self, number: int) -> None:
        """The trial waits no more."""
        self.waiting.pop(number, None)

    def _stays(self, bracket: int, number: int, epoch: int, enters: bool) -> bool:
        if enters:
            self.waiting[number] = bracket, epoch
            if self.next_promoted() == number:
                self.promote(number)
        elif epoch > self.waiting.get(number, (0, epoch))[1]:
            self.promote(number)  # the log does not say when it was
        return number not in self.waiting

    def _first(self, bracket: int, epoch: int) -> list[int]:
        rung = self._rungs[bracket, epoch]
        known = self._ahead.get((bracket, epoch))
        if known is None or known[0] != len(rung.numbers):
            known = len(rung.numbers), rung.ahead(self._ladder.reduction_factor, self._rank)
            self._ahead[bracket, epoch] = known
        return known[1]
