"""Who watches a study is told what happens in it, in our words and not in Ray's: logs, metrics, trackers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
from ray.tune import Callback

from sbp_tune.study.recorder import cause_of, number_in, reason
from sbp_tune.study.retries import is_death
from sbp_tune.study.states import state_of
from sbp_tune.study.storage import attempts, open_study, trial_of


@dataclass(frozen=True)
class Attempt:
    """One attempt of a trial: number of the trial, which attempt it is from 0 on, search or baseline, its config.

    trial_id: Ray's; first_id: Ray's of the trial's first attempt, which no other trial of any study has.
    """

    number: int
    attempt: int
    kind: str
    config: dict[str, Any]
    trial_id: str
    first_id: str

    @classmethod
    def of(cls, record: FrozenTrial, trial_id: str) -> Attempt:
        """The attempt of a stored trial that Ray calls so."""
        kind, ids = "baseline" if "baseline" in record.user_attrs else "search", attempts(record)
        return cls(record.number, ids.index(trial_id), kind, record.user_attrs["config"], trial_id, ids[0])


class Watcher:
    """Is told what happens; does nothing with it by itself."""

    def study_began(self, facts: dict[str, Any]) -> None:
        """A start of the study: what it is to run and on what; `resumed`: whether there was a start before."""

    def trial_began(self, attempt: Attempt) -> None:
        """A trial begins, or goes on as another attempt."""

    def epoch_ended(self, attempt: Attempt, row: dict[str, Any]) -> None:
        """A result as it was reported."""

    def trial_died(self, attempt: Attempt, why: str) -> None:
        """Its worker or node died; it will go on as another attempt."""

    def trial_ended(self, attempt: Attempt, state: str, why: str | None) -> None:
        """state: complete, stopped, failed, or interrupted, as a study that stops leaves it; why: of a failure."""

    def said(self, event: str, line: str) -> None:
        """What a person is told: a line of `budget`, or a `warning`."""

    def study_ended(self, facts: dict[str, Any]) -> None:
        """The end of this start; `ending` says how."""


class Watching(Callback):
    """Tells watchers what Ray's controller says; comes after the recorder, which settles trials that failed.

    What Ray does not say of trials that a budget or an interrupt stops, `close` does.
    """

    def __init__(self, path: Path) -> None:
        self._study = open_study(path)
        self._watchers: list[Watcher] = []
        self._open: dict[str, Attempt] = {}  # by Ray's id

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles callbacks when it starts; nothing of this one is wanted from there."""
        return {}

    def begin(self, watchers: Sequence[Watcher], facts: dict[str, Any]) -> None:
        """This start of the study begins, and these watch it."""
        self._watchers = list(watchers)
        for watcher in self._watchers:
            watcher.study_began(facts)

    def say(self, event: str, line: str) -> None:
        """Hands on what a person is told."""
        for watcher in self._watchers:
            watcher.said(event, line)

    def close(self, ending: str) -> None:
        """This start has ended, and the trials with it that had not; to be called when they are settled."""
        for attempt in list(self._open.values()):
            self._end(attempt, trial_of(self._study, attempt.number), "interrupted")
        for watcher in self._watchers:
            watcher.study_ended({"ending": ending})

    def break_off(self, error: BaseException) -> None:
        """An error has ended this start; the storage is asked nothing, since it may be what failed."""
        for attempt in self._open.values():
            for watcher in self._watchers:
                watcher.trial_ended(attempt, "interrupted", None)
        for watcher in self._watchers:
            watcher.study_ended({"ending": "failed", "error": reason(error)})

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        attempt = Attempt.of(trial_of(self._study, number_in(trial)), trial.trial_id)
        self._open[trial.trial_id] = attempt
        for watcher in self._watchers:
            watcher.trial_began(attempt)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        for watcher in self._watchers:
            watcher.epoch_ended(self._open[trial.trial_id], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if attempt := self._open.get(trial.trial_id):
            self._end(attempt, trial_of(self._study, attempt.number))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        attempt = self._open.get(trial.trial_id)
        if attempt is None:  # its actor could not be made
            self.on_trial_start(iteration, trials, trial)
            attempt = self._open[trial.trial_id]
        cause, record = cause_of(trial), trial_of(self._study, attempt.number)
        if state_of(record) == "running" and is_death(cause):
            del self._open[trial.trial_id]
            for watcher in self._watchers:
                watcher.trial_died(attempt, reason(cause))
        else:
            self._end(attempt, record, "interrupted", reason(cause))

    def _end(self, attempt: Attempt, record: FrozenTrial, unfinished: str = "running", why: str | None = None) -> None:
        """record: the trial as stored now, read once: that costs more than all else; why: if it has no error."""
        del self._open[attempt.trial_id]
        state = state_of(record, unfinished)
        error = None if state == "complete" else record.user_attrs.get("error", why)
        for watcher in self._watchers:
            watcher.trial_ended(attempt, state, error)
