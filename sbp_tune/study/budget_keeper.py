"""Keeps a study within its budget while Ray runs it: collects what was used, and applies `budget` to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from ray.tune import Stopper

from sbp_tune.energy.carbon import co2_kg
from sbp_tune.study.budget import Amount, Run, Verdict, is_used_up, need, planned, verdict
from sbp_tune.study.epochs import read_log
from sbp_tune.study.file import Study
from sbp_tune.study.gain import Gain
from sbp_tune.study.ledger import study_bill
from sbp_tune.study.settle import first_values, objective_values
from sbp_tune.study.spending import Spending, Spent, elapsed_s
from sbp_tune.study.states import waits
from sbp_tune.study.storage import attempts, open_study
from sbp_tune.units import readable_energy

_STARTS = "starts"  # the study's attribute: when each start began and ended
_LOOKED_AT = 200  # the latest trials that an estimate is made from, so that it costs the same in any study


class BudgetKeeper(Stopper):
    """Asked by the searcher before a trial starts, and by Ray whether all must stop.

    say: told, in one line, why no more trials start, and why those that run are stopped. What trials used is counted,
    not what machines used beside them. CO2 is kWh times a constant of the place, so both are one limit.
    """

    def __init__(self, study: Study, path: Path, say: Callable[[str], None] = print) -> None:
        self._study, self._path, self._say = study, path, say
        self._storage = open_study(path)
        self._limits = limits_of(study)
        self._spending = Spending()
        self._runs: dict[int, Run] = {}  # every trial that has a config, as planned
        self._running: set[int] = set()
        self._numbers: dict[str, int] = {}  # Ray's trial id -> trial
        self._ended: list[tuple[list[float] | None, float]] = []  # values and kWh, in the order of their ending
        self._gain: Gain | None = None
        self._before_s, self._began = 0.0, inf
        self._closed: str | None = None  # why no more trials start
        self._take_up()

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles stoppers when it starts; nothing of this one is wanted from there."""
        return {}

    @property
    def kwh(self) -> float:
        """What all trials have used so far, over all starts of the study."""
        return self._spending.kwh

    def begin(self) -> None:
        """The clock runs from now."""
        self._began = time.monotonic()
        self._storage.set_user_attr(_STARTS, [*self._starts(), [time.time()] * 2])

    def end(self) -> None:
        """The clock stops; a crash leaves that to the reports of the trials."""
        *before, (began, _) = self._starts()
        self._storage.set_user_attr(_STARTS, [*before, [began, time.time()]])

    def admits(self, trial_id: str, number: int, config: dict[str, Any]) -> Verdict:
        """Whether a trial may start now, under Ray's id; from START on it counts as running."""
        self._note_ended()
        if number in self._running:  # its worker died, and it goes on
            self._numbers[trial_id] = number
            return Verdict.STOP if is_used_up(self._limits, self._used()) else Verdict.START
        if self._closed is None and (why := self._why_not(number, config)):
            self._close(f"{why}: no more trials are started")
        if self._closed is not None:
            return Verdict.STOP
        answer = self._verdict(number)
        if answer is Verdict.START:
            self._running.add(number)
            self._numbers[trial_id] = number
        return answer

    def used_up(self) -> str | None:
        """Why the study cannot go on within its budget, in words; None where it can, or nothing is known against it."""
        begun = self._storage.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
        known = (trial for trial in begun if "config" in trial.user_attrs)
        trial = next(known, None)
        if trial is None:
            return self._standing() if is_used_up(self._limits, self._used()) else self._too_little_gained()
        return self._why_not(trial.number, trial.user_attrs["config"])

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if trial_id in self._numbers:
            self._spending.add(self._numbers[trial_id], result)
        return False

    def stop_all(self) -> bool:
        if not is_used_up(self._limits, self._used()):
            return False
        if self._running:
            self._close(f"{self._standing()}: trials that still run are stopped")
        return True

    def _close(self, why: str) -> None:
        if self._closed != why:
            self._closed = why
            self._say(f"Budget: {why}.")

    def _why_not(self, number: int, config: dict[str, Any]) -> str | None:
        """Why this trial and all after it cannot start, in words; None if it may start, now or later."""
        if is_used_up(self._limits, self._used()):
            return self._standing()
        if why := self._too_little_gained():
            return why
        self._runs.setdefault(number, planned(config))
        if self._verdict(number) is not Verdict.STOP:
            return None
        needed = self._need(number)
        return f"{self._standing()}, the next trial would take about {_text(needed, self._limits)}"

    def _verdict(self, number: int) -> Verdict:
        running = [self._need(other) for other in self._running - {number}]
        return verdict(self._limits, self._used(), self._need(number), running)

    def _need(self, number: int) -> Amount:
        return need(self._run(number), [self._run(other) for other in self._latest()])

    def _latest(self) -> list[int]:
        return list(islice((number for number in reversed(self._spending.trials) if number in self._runs), _LOOKED_AT))

    def _run(self, number: int) -> Run:
        """A trial as planned, with what it has done by now."""
        spent = self._spending.trials.get(number, Spent())
        return self._runs[number]._replace(done=spent.done, epoch_kwh=spent.epoch_kwh, epoch_s=spent.epoch_s)

    def _used(self) -> Amount:
        return Amount(self._spending.kwh, self._before_s + max(time.monotonic() - self._began, 0.0))

    def _standing(self) -> str:
        """What is used of the budget, in words."""
        return f"{_text(self._used(), self._limits)} of {_text(self._limits, self._limits)} used"

    def _too_little_gained(self) -> str | None:
        wanted = self._study.file.budget.hypervolume_gain
        if wanted is None or self._gain is None:
            return None
        gained = self._gain.per_kwh(wanted.trials)
        if gained is None or gained >= wanted.per_kwh:
            return None
        return (
            f"the last {wanted.trials} trials gained {gained:.3g} of hypervolume per kWh, less than {wanted.per_kwh:g}"
        )

    def _starts(self) -> list[list[float]]:
        return list(self._storage.user_attrs.get(_STARTS, []))

    def _take_up(self) -> None:
        """All that earlier starts of the study have left."""
        trials = self._storage.get_trials(deepcopy=False)
        self._runs = {
            trial.number: planned(trial.user_attrs["config"]) for trial in trials if "config" in trial.user_attrs
        }
        self._numbers = {attempt: trial.number for trial in trials for attempt in attempts(trial)}
        log = read_log(self._path)
        for row in log:
            if (number := self._numbers.get(str(row.get("trial_id")))) is not None:
                self._spending.add(number, row)
        self._before_s = elapsed_s(self._starts(), [row["timestamp"] for row in log if "timestamp" in row])
        begun = [trial for trial in trials if attempts(trial)]
        self._bill([trial.number for trial in begun])
        self._take_ended([trial for trial in begun if trial.state.is_finished()])

    def _bill(self, numbers: list[int]) -> None:
        """Takes from the ledger what trials that do not run now used beyond what they reported."""
        billed = study_bill(self._path)
        bills = {} if billed is None or billed.bill is None else billed.bill.trials
        for number in numbers:
            if str(number) in bills:
                self._spending.bill(number, bills[str(number)].known_kwh)

    def _note_ended(self) -> None:
        """Takes up the trials that have ended since it was called last."""
        trials = self._storage.get_trials(deepcopy=False)
        ended = [trials[number] for number in self._running if trials[number].state.is_finished()]
        self._running -= {number for number in self._running if waits(trials[number])}
        self._running -= {trial.number for trial in ended}
        if failed := [trial.number for trial in ended if trial.state == TrialState.FAIL]:
            self._bill(failed)  # of the epoch in which it failed it reported nothing
        self._take_ended(ended)

    def _take_ended(self, trials: list[Any]) -> None:
        for trial in sorted(trials, key=lambda trial: trial.datetime_complete or datetime.min):
            item = (
                objective_values(trial) if trial.state == TrialState.COMPLETE else None,
                self._spending.of(trial.number),
            )
            self._ended.append(item)
            if self._gain is not None:
                self._gain.add(*item)
        if (
            self._gain is None
            and self._study.file.budget.hypervolume_gain
            and (first := first_values(self._storage.get_trials(deepcopy=False)))
        ):
            self._gain = Gain(list(self._study.objectives.values()), first)
            for item in self._ended:
                self._gain.add(*item)


def limits_of(study: Study) -> Amount:
    """The kWh and seconds that the study file allows; CO2 as the kWh that make it where the study is done."""
    budget, energy = study.file.budget, study.file.energy
    kwh = [] if budget.kwh is None else [budget.kwh]
    if budget.co2_kg is not None:
        kwh.append(budget.co2_kg / co2_kg(1.0, pue=energy.pue, **energy.place))
    return Amount(min(kwh, default=None), None if budget.hours is None else budget.hours * 3600)


def _text(amount: Amount, limits: Amount) -> str:
    """The parts of an amount that are limited, in words."""
    energy = "" if limits.kwh is None or amount.kwh is None else readable_energy(amount.kwh)
    time = "" if limits.seconds is None or amount.seconds is None else f"{amount.seconds / 3600:.3g} h"
    return " and ".join(filter(None, (energy, time)))
