"""Optuna proposes, Ray runs: the searcher between them.

Ray's own OptunaSearch tells Optuna whatever a trial last reported: a stopped trial becomes a
complete one with little accuracy and tiny energy, and a NaN leaves the trial running for ever. Here
only a fully trained trial is complete. All state is in the study's storage: a trial that a crash left
unfinished there is the first to be suggested again, as a new attempt from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from sbp_tune.errors import InputError
from sbp_tune.study.budget import Verdict
from sbp_tune.study.checkpoints import checkpoints_of
from sbp_tune.study.demand import AVOIDED
from sbp_tune.study.duplicates import DUPLICATE_OF, NO_SMALLER_THAN, REPLACED, Seen, counts
from sbp_tune.study.epochs import read_rows
from sbp_tune.study.file import Study
from sbp_tune.study.ledger import metering_place
from sbp_tune.study.nodes import TrialNodes
from sbp_tune.study.retries import died, rests
from sbp_tune.study.samplers import make_sampler
from sbp_tune.study.scheduler import MOASHA
from sbp_tune.study.settle import baseline_problem, is_held, settle
from sbp_tune.study.states import note_waiting
from sbp_tune.study.storage import attempts, open_study, set_attribute, trial_of

Admits = Callable[[str, int, dict[str, Any]], Verdict]


class OptunaSearcher(Searcher):
    """Asks and tells the Optuna study of a study directory until it holds all trials of the study file.

    admits: the budget's say on a trial, by Ray's id, number and config; one that has to wait is asked about again.
    nodes: where trials may run, and how many at a time; None: anywhere, and Ray limits them.
    scheduler: at whose rungs trials may wait; those that it promotes go on before any other is proposed.
    """

    def __init__(
        self,
        study: Study,
        path: Path,
        admits: Admits | None = None,
        nodes: TrialNodes | None = None,
        scheduler: MOASHA | None = None,
    ) -> None:
        super().__init__(metric=list(study.objectives), mode=list(study.objectives.values()))
        self._study, self._path, self._admits, self._nodes, self._scheduler = study, path, admits, nodes, scheduler
        self._optuna = open_study(path)
        started = _started(self._optuna)
        self._optuna.sampler = study_sampler(study, len(started))
        self._mine: dict[str, int] = {}  # Ray's ids of the attempts that this searcher started, and their trials
        self._running: set[str] = set()  # those of them that have not ended, whether they have begun or not
        self._waited: set[str] = set()  # those of them that ended at a rung, where their trials waited
        for trial in started:
            if trial.state == TrialState.RUNNING:  # a crash came between the scheduler's decision and its note
                note_waiting(self._optuna, trial.number, trial.number in self._waiting)
        self._closed = False
        self._seen = Seen(study, started)
        left = [attempt for trial in started if trial.state == TrialState.RUNNING for attempt in attempts(trial)]
        self._left = read_rows(path, set(left)) if left else {}  # results of what an earlier start left unfinished
        self._repeats = 0  # proposals in a row that had run, or would not fit
        self.ended_early: str | None = None  # why the search ends before all trials are proposed

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The complete config of the next attempt, with its `lease`, and `resume_from` if there are checkpoints.

        FINISHED when all trials have ended, or the budget allows no more, or no more can be proposed; None while that
        is not so, but nothing can start now: a trial that runs may yet have to go on as another attempt.
        """
        if self._closed:
            return str(Searcher.FINISHED)
        full = self._nodes is not None and len(self._running) >= self._nodes.room()
        if full and self._running:
            return None
        config = None
        while config is None:
            started = _started(self._optuna)
            unfinished = [trial for trial in started if trial.state == TrialState.RUNNING]
            trial = next((t for t in unfinished if self._can_go_on(t)), None) or self._promoted(unfinished)
            if trial is None and self._is_complete(started):
                return str(Searcher.FINISHED) if all(t.number in self._waiting for t in unfinished) else None
            if full:
                return None
            self._seen.note_what_does_not_fit(started)
            number = self._ask() if trial is None else trial.number
            config = self._config(number)
        answer = Verdict.START if self._admits is None else self._admits(trial_id, number, config)
        if answer is not Verdict.START:
            mine = self._mine.keys() - self._waited
            goes_on = answer is Verdict.WAIT or any(mine & set(attempts(trial)) for trial in unfinished)
            return None if goes_on else str(Searcher.FINISHED)
        before = attempts(trial_of(self._optuna, number))
        checkpoints = [path for attempt in reversed(before) for path in checkpoints_of(self._path, attempt)]
        set_attribute(self._optuna, number, "attempts", [*before, trial_id])
        if self._scheduler is not None and number in self._waiting:
            self._scheduler.promote(number)
            note_waiting(self._optuna, number, False)
        self._mine[trial_id] = number
        self._running.add(trial_id)
        lease: dict[str, Any] = {"folder": metering_place(self._path), "trial": str(number), "attempt": len(before)}
        if checkpoints and not self._mine.keys() & set(before):  # this start has missed no result
            epochs = [int(row["epoch"]) for attempt in before for row in self._left.get(attempt, [])]
            lease["reported"] = max(epochs, default=0)
        beside = {"lease": lease, **self._study.beside_config, **({"resume_from": checkpoints} if checkpoints else {})}
        if self._nodes is not None and (avoided := self._nodes.avoided()):
            lease[AVOIDED] = avoided
        return {**config, **beside}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing to learn before a trial has ended: Optuna takes no intermediate values of several objectives."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells Optuna how a trial ended. An error is told by the callback that knows its reason."""
        self._running.discard(trial_id)
        number = self._mine.get(trial_id)
        if number is None or error:
            return
        if number in self._waiting:
            self._waited.add(trial_id)
            note_waiting(self._optuna, number, True)
        else:
            settle(self._optuna, number, result, self._study)

    def close(self) -> None:
        """Nothing is suggested any more. Ray asks again and again while nothing runs, and hears no Ctrl-C then."""
        self._closed = True

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """True, to Ray: how many trials there are at a time is for this searcher to say, as machines come and go."""
        return self._nodes is not None

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the storage is the state. Ray wants a file."""
        Path(checkpoint_path).write_text("the state of this searcher is in study.db\n", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""

    def _ask(self) -> int:
        """Number of a trial that has not begun."""
        return self._optuna.ask().number

    def _can_go_on(self, trial: FrozenTrial) -> bool:
        """Whether an unfinished trial can begin its next attempt: none runs, and it is neither to rest nor to wait."""
        live = self._mine.keys() & set(attempts(trial)) - died(trial) - self._waited
        return not (live or is_held(trial) or rests(trial) or trial.number in self._waiting)

    @property
    def _waiting(self) -> Collection[int]:
        """Trials that wait for others at a rung."""
        return () if self._scheduler is None else self._scheduler.waiting

    def _promoted(self, unfinished: list[FrozenTrial]) -> FrozenTrial | None:
        """The trial that waits and is to go on now, if there is one; not while Ray still ends its last attempt."""
        while self._scheduler is not None and (number := self._scheduler.next_promoted()) is not None:
            trial = next((trial for trial in unfinished if trial.number == number), None)
            if trial is not None:
                return None if self._running & set(attempts(trial)) else trial
            self._scheduler.promote(number)  # from where nobody waits any more: it failed, or its study had ended
        return None

    def _is_complete(self, started: list[FrozenTrial]) -> bool:
        """Whether nothing is left to propose, for whatever reason."""
        if self.ended_early is None:
            self.ended_early = baseline_problem(self._optuna, self._study)
        return self.ended_early is not None or sum(map(counts, started)) >= self._study.total_trials

    def _config(self, number: int) -> dict[str, Any] | None:
        """The config of a trial that has begun, proposed now if it was not; None, and the trial failed, if invalid.

        None likewise for a config that has run, or that needs no less memory than one that did not fit. A crash can
        come between the asking and the noting; what was asked by then is in the storage.
        """
        record = trial_of(self._optuna, number)
        if "config" in record.user_attrs:
            return dict(record.user_attrs["config"])
        trial = optuna.Trial(self._optuna, record._trial_id)
        fixed = record.system_attrs.get("fixed_params", {})
        values = record.user_attrs.get("point")
        if values is None:
            values = self._study.space.suggest(trial)
        else:  # a baseline: parameters outside the space are its own, the others are known to the sampler
            for parameter in self._study.space.parameters:
                if parameter.key in values and parameter.domain.contains(values[parameter.key]):
                    parameter.domain.suggest(trial, parameter.key)
        try:
            config = self._study.train_config(values)
        except InputError as error:  # values that are valid one by one, but not together
            trial.set_user_attr("error", "; ".join(error.problems))
            self._optuna.tell(number, state=TrialState.FAIL)
            return None
        asked_for = "point" in record.user_attrs or values.keys() <= fixed.keys()
        if not asked_for:
            if (same := self._seen.number_of(config)) is not None:
                self._propose_again(trial, fixed, f"duplicate of trial {same}", {DUPLICATE_OF: same})
                return None
            if (small := self._seen.smaller_that_did_not_fit(config)) is not None:
                why = f"not tried: trial {small} ran out of memory, and this needs no less"
                self._propose_again(trial, fixed, why, {NO_SMALLER_THAN: small})
                return None
        self._repeats = 0
        self._seen.add(number, config)
        trial.set_user_attr("config", config)
        return config

    def _propose_again(self, trial: optuna.Trial, fixed: dict[str, Any], why: str, attributes: dict[str, Any]) -> None:
        """Another proposal instead of one not worth trying: the sampler's, or a random new one if it goes on like that.

        What is not tried is failed, not stopped: samplers learn nothing from a failed trial.
        """
        self._repeats += 1
        again: dict[str, Any] | None = fixed
        if self._repeats > self._study.file.search.reproposals:
            self._repeats = 0
            again = self._seen.unseen_parameters(fixed, seed=self._study.file.search.seed + trial.number)
        if again:
            self._optuna.enqueue_trial(again)
        if again is None and not fixed:
            memory = ", or do not fit into memory" if NO_SMALLER_THAN in attributes else ""
            self.ended_early = (
                f"nothing is left to propose: the configs of the space have all run, or are running{memory}"
            )
        for key, value in {"error": why, **attributes, REPLACED: again is not None}.items():
            trial.set_user_attr(key, value)
        self._optuna.tell(trial.number, state=TrialState.FAIL)


def study_sampler(study: Study, started: int) -> optuna.samplers.BaseSampler:
    """The sampler that the study file names, seeded; after a restart not with the same random numbers again."""
    seed = study.file.search.seed
    if started > 0:
        seed = int(np.random.SeedSequence([seed, started]).generate_state(1)[0])
    return make_sampler(study.sampler, seed, study.space)


def enqueue_fixed_points(optuna_study: optuna.Study, study: Study) -> None:
    """Baselines first, then the grid, each once: what the storage has already is left alone."""
    trials = [trial for trial in optuna_study.get_trials(deepcopy=False) if counts(trial)]
    baselines = sum("baseline" in trial.user_attrs for trial in trials)
    for index, point in list(enumerate(study.baselines))[baselines:]:
        optuna_study.enqueue_trial(study.space.optuna_parameters(point), {"baseline": index, "point": point})
    if study.grid != [{}]:
        repeats = study.proposed_trials // len(study.grid)
        for point in (study.grid * repeats)[len(trials) - baselines :]:
            optuna_study.enqueue_trial(study.space.optuna_parameters(point))


def _started(study: optuna.Study) -> list[FrozenTrial]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
