"""MO-ASHA on Ray: stops trials that are behind in all objectives together, at equal epochs.

Asynchronous successive halving for several objectives (Schmucker et al. 2021, arXiv:2106.12639). A trial
that reaches a rung is compared with those that were there before it, by what each had reported at that
very epoch: energy is never compared between trials of different age. At its later epochs it is compared
again at that rung, where more may have come meanwhile: the first trials of a study had hardly a rival.
Ray does not save its schedulers; ours is made again from the study's log, result by result as they came,
and so decides as it had decided.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sbp_tune.study.ranking import is_kept
from sbp_tune.study.rungs import Ladder, Rung
from sbp_tune.study.ties import tied


@dataclass(frozen=True)
class Contestant:
    """What the scheduler knows of a trial. An exempt one is never stopped, yet stands in the rungs as a rival."""

    number: int
    epochs: int  # that it plans to train
    horizon: float = math.inf  # see Rung
    exempt: bool = False


class MOASHA(FIFOScheduler):
    """Stops a trial that, at the last rung it reached, is dominated and not among the first 1 / reduction_factor.

    objectives: column to max or min; one alone makes it ASHA. contestant_of: a Ray trial id to its trial, None
    for one that is nobody's. tie: energies within steps of this ratio are equal. A trial with an objective that
    is not a finite number is stopped at once, and is nobody's rival. A rung at or beyond a trial's last epoch is
    none of its: nothing would be saved there.
    """

    _supports_buffered_results = False  # a trial must not train on while its results lie in a buffer

    def __init__(
        self,
        objectives: dict[str, str],
        contestant_of: Callable[[str], Contestant | None],
        ladder: Ladder,
        rank: str = "epsnet",
        tie: float = 0.0,
    ) -> None:
        super().__init__()
        self._signs = {name: -1.0 if mode == "max" else 1.0 for name, mode in objectives.items()}
        self._contestant_of, self._ladder, self._rank, self._tie = contestant_of, ladder, rank, tie
        self._rungs: dict[tuple[int, int], Rung] = {}  # by bracket and epoch
        self._entered: dict[tuple[int, int], int] = {}  # bracket and trial -> the epoch of the last rung it entered
        self.stopped: dict[int, int] = {}  # trial -> the epoch at which it was decided to stop it
        self.waiting: dict[int, tuple[int, int]] = {}  # trial -> bracket and epoch of the rung where it waits

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """False, an error in Ray, where the tuner names a metric: the objectives are the study's."""
        return metric is None and mode is None

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        contestant = self._contestant_of(trial.trial_id)
        goes_on = contestant is None or self.goes_on(contestant, result)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def replay(self, rows: Iterable[dict[str, Any]]) -> None:
        """Takes up the results of a log, oldest first."""
        for row in rows:
            contestant = self._contestant_of(str(row.get("trial_id")))
            if contestant is None:
                continue
            if row["epoch"] > self.stopped.get(contestant.number, math.inf):
                del self.stopped[contestant.number]  # it went on: under other settings, or before a crash
            self.goes_on(contestant, row)

    def goes_on(self, contestant: Contestant, result: dict[str, Any]) -> bool:
        """Takes up a result of a trial; whether the trial may train on. All decisions are made here, without Ray."""
        number, epoch = contestant.number, result["epoch"]
        costs = self._costs(result)
        if costs is None and not contestant.exempt:
            self.stopped.setdefault(number, epoch)
        if number in self.stopped:
            return False
        if costs is None or epoch >= contestant.epochs or result.get("fully_trained"):
            return True
        stays = True
        for bracket in range(self._ladder.brackets) if contestant.exempt else [self._ladder.bracket_of(number)]:
            level = max(self._ladder.below(bracket, epoch + 1), default=0)
            if enters := level > self._entered.get((bracket, number), 0):
                self._entered[bracket, number] = epoch
                rung = self._rungs.setdefault((bracket, epoch), Rung(len(self._signs)))
                rung.enter(number, contestant.horizon, costs)
            stays = contestant.exempt or self._stays(bracket, number, epoch, enters)
        return stays

    def next_promoted(self) -> int | None:
        """Which of the trials that wait is to go on; None where none is, and always where none waits."""
        return None

    def promote(self, number: int) -> None:
        """The trial goes on."""

    def _stays(self, bracket: int, number: int, epoch: int, enters: bool) -> bool:
        """Whether a trial is ahead at the last rung that it entered, now or before: others have come there after it."""
        entered = self._entered.get((bracket, number))
        if entered is None:
            return True
        rivals = self._rungs[bracket, entered].rivals(number)
        if not is_kept(rivals, self._ladder.reduction_factor, self._rank):
            self.stopped[number] = epoch
        return number not in self.stopped

    def _costs(self, result: dict[str, Any]) -> list[float] | None:
        """The objectives, smaller is better; None if one is missing or not a finite number."""
        costs = []
        for name, sign in self._signs.items():
            value = result.get(name)
            if not isinstance(value, int | float) or not math.isfinite(value):
                return None
            costs.append(sign * tied(name, value, self._tie))
        return costs

    def state(self) -> dict[str, Any]:
        """All that decisions depend on, as plain data."""
        return {
            "rungs": [[*key, rung.numbers, rung.rows()] for key, rung in self._rungs.items()],
            "entered": [[*key, epoch] for key, epoch in self._entered.items()],
            "stopped": list(self.stopped.items()),
            "waiting": [[number, *rung] for number, rung in self.waiting.items()],
        }

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text(json.dumps(self.state()), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        state = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        self._rungs = {}
        for bracket, epoch, numbers, rows in state["rungs"]:
            rung = self._rungs[bracket, epoch] = Rung(len(self._signs))
            for number, (horizon, *costs) in zip(numbers, rows, strict=True):
                rung.enter(number, horizon, costs)
        self._entered = {(bracket, number): epoch for bracket, number, epoch in state["entered"]}
        self.stopped = dict(state["stopped"])
        self.waiting = {number: (bracket, epoch) for number, bracket, epoch in state["waiting"]}

    def debug_string(self) -> str:
        rungs = ", ".join(
            f"bracket {bracket} epoch {epoch}: {len(rung.numbers)}" for (bracket, epoch), rung in self._rungs.items()
        )
        return f"MOASHA: {len(self.stopped)} trials stopped; trials at rungs: {rungs or 'none'}"
