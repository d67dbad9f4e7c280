"""Optuna proposes, Ray runs: the searcher between them.

Ray's own OptunaSearch tells Optuna whatever a trial last reported: a stopped trial becomes a
complete one with little accuracy and tiny energy, and a NaN leaves the trial running for ever. Here
only a fully trained trial is complete. All state is in the study's storage: a trial that a crash left
unfinished there is the first to be suggested again, as a new attempt from its last checkpoint.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sbp_tune.errors import InputError
from sbp_tune.study.file import Study
from sbp_tune.study.ledger import ledger_folder
from sbp_tune.study.storage import attempts, number_of, open_study, set_attribute

_TIED = ("kwh", "co2_kg")  # objectives in which a small difference is noise of the measurement


class OptunaSearcher(Searcher):
    """Asks and tells the Optuna study of a study directory until it holds all trials of the study file."""

    def __init__(self, study: Study, path: Path) -> None:
        super().__init__(metric=list(study.objectives), mode=list(study.objectives.values()))
        self._study, self._path = study, path
        self._optuna = open_study(path)
        self._optuna.sampler = make_sampler(study, len(_started(self._optuna)))
        self._mine: set[str] = set()  # Ray's ids of the attempts that this searcher started

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The complete config of the next attempt, with its `lease`, and `resume_from` if there are checkpoints.

        FINISHED when all trials are proposed.
        """
        config = None
        while config is None:
            started = _started(self._optuna)
            trial = next(
                (t for t in started if t.state == TrialState.RUNNING and not self._mine & set(attempts(t))), None
            )
            if trial is None and len(started) >= self._study.total_trials:
                return str(Searcher.FINISHED)
            number = self._optuna.ask().number if trial is None else trial.number
            config = self._config(number)
        before = attempts(self._optuna.get_trials(deepcopy=False)[number])
        checkpoints = [path for attempt in reversed(before) for path in self._checkpoints(attempt)]
        set_attribute(self._optuna, number, "attempts", [*before, trial_id])
        self._mine.add(trial_id)
        folder = ledger_folder(self._path)
        lease = {"folder": str(folder.resolve()), "trial": str(number), "attempt": len(before)}
        beside = {"lease": lease, **self._study.beside_config, **({"resume_from": checkpoints} if checkpoints else {})}
        return {**config, **beside}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing to learn before a trial has ended: Optuna takes no intermediate values of several objectives."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells Optuna how a trial ended. An error is told by the callback that knows its reason."""
        number = number_of(self._optuna, trial_id)
        if number is not None and not error:
            settle(self._optuna, number, result, self._study.objectives, self._study.file.search.tie)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the storage is the state. Ray wants a file."""
        Path(checkpoint_path).write_text("the state of this searcher is in study.db\n", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""

    def _config(self, number: int) -> dict[str, Any] | None:
        """The config of a trial that has begun, proposed now if it was not; None, and the trial failed, if invalid.

        A crash can come between the asking and the noting; what was asked by then is in the storage.
        """
        record = self._optuna.get_trials(deepcopy=False)[number]
        if "config" in record.user_attrs:
            return dict(record.user_attrs["config"])
        trial = optuna.Trial(self._optuna, record._trial_id)
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
        trial.set_user_attr("config", config)
        return config

    def _checkpoints(self, attempt: str) -> list[str]:
        """Checkpoints of an attempt, newest first; a crash may have left the newest unfinished."""
        return [str(path) for path in sorted((self._path / "ray" / attempt).glob("checkpoint_*"), reverse=True)]


def settle(
    study: optuna.Study, number: int, result: dict[str, Any] | None, objectives: dict[str, str], tie: float = 0.0
) -> None:
    """Tells Optuna how an unfinished trial ended, by its last result; a finished one stays as it is.

    With `tie`, energies are told in steps of that ratio, and what they were stays in the attribute `values`.
    """
    if study.get_trials(deepcopy=False)[number].state.is_finished():
        return
    state, values, reason = outcome(result, objectives)
    if reason is not None:
        set_attribute(study, number, "error", reason)
    if values is not None and tie > 0:
        set_attribute(study, number, "values", dict(zip(objectives, values, strict=True)))
        values = [_in_steps(v, tie) if name in _TIED else v for name, v in zip(objectives, values, strict=True)]
    study.tell(number, values, state)


def _in_steps(value: float, ratio: float) -> float:
    """The value rounded down to a power of 1 + ratio."""
    step = math.log1p(ratio)
    return math.exp(step * math.floor(math.log(value) / step)) if value > 0 else value


def outcome(
    result: dict[str, Any] | None, objectives: dict[str, str]
) -> tuple[TrialState, list[float] | None, str | None]:
    """How a trial ended: Optuna's state, the objectives' values, and why it failed or was stopped, if that is known."""
    if not result:
        return TrialState.PRUNED, None, None
    values = {name: result.get(name) for name in objectives}
    numbers = [float(value) for value in values.values() if isinstance(value, int | float) and math.isfinite(value)]
    reason = next((f"{name} is {value}" for name, value in values.items() if value not in numbers), None)
    if not result.get("fully_trained"):
        return TrialState.PRUNED, None, reason
    if reason is None and "kwh" in values and result["kwh"] <= 0:
        reason = "no energy was measured (kwh is 0)"
    return (TrialState.COMPLETE, numbers, None) if reason is None else (TrialState.FAIL, None, reason)


def make_sampler(study: Study, started: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler that the study file names, seeded; after a restart not with the same random numbers again."""
    search = study.file.search
    seed = search.seed if started == 0 else int(np.random.SeedSequence([search.seed, started]).generate_state(1)[0])
    match search.sampler:
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)


def enqueue_fixed_points(optuna_study: optuna.Study, study: Study) -> None:
    """Baselines first, then the grid: once, when the study is made."""
    for index, point in enumerate(study.baselines):
        optuna_study.enqueue_trial(study.space.optuna_parameters(point), {"baseline": index, "point": point})
    if study.grid != [{}]:
        repeats = study.proposed_trials // len(study.grid)
        for point in study.grid * repeats:
            optuna_study.enqueue_trial(study.space.optuna_parameters(point))


def _started(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
