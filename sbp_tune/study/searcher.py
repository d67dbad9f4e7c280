"""Optuna proposes, Ray runs: the searcher between them.

Ray's own OptunaSearch tells Optuna whatever a trial last reported: a stopped trial becomes a
complete one with little accuracy and tiny energy, and a NaN leaves the trial running for ever. Here
only a fully trained trial is complete. All state is in the study's storage, found again by Ray's
trial id, so a restored searcher can be no older than the storage.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sbp_tune.study.file import Study
from sbp_tune.study.storage import number_of, open_study, set_attribute


class OptunaSearcher(Searcher):
    """Asks and tells the Optuna study of a study directory until it holds all trials of the study file."""

    def __init__(self, study: Study, path: Path) -> None:
        super().__init__(metric=list(study.objectives), mode=list(study.objectives.values()))
        self._study = study
        self._optuna = open_study(path, make_sampler(study))

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The complete config of the next trial; FINISHED when all are proposed."""
        trials = self._optuna.get_trials(deepcopy=False)
        started = [trial for trial in trials if trial.state != TrialState.WAITING and not is_superseded(trial)]
        if len(started) >= self._study.total_trials:
            return str(Searcher.FINISHED)
        trial = self._optuna.ask()
        fixed = trial.user_attrs.get("point")
        if fixed is None:
            values = self._study.space.suggest(trial)
        else:  # a baseline: parameters outside the space are its own, the others are known to the sampler
            values = fixed
            for parameter in self._study.space.parameters:
                if parameter.key in values and parameter.domain.contains(values[parameter.key]):
                    parameter.domain.suggest(trial, parameter.key)
        config = self._study.train_config(values)
        trial.set_user_attr("trial_id", trial_id)
        trial.set_user_attr("config", config)
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing to learn before a trial has ended: Optuna takes no intermediate values of several objectives."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells Optuna how a trial ended: complete only when fully trained with finite objectives."""
        number = number_of(self._optuna, trial_id)
        if number is None or self._optuna.get_trials(deepcopy=False)[number].state.is_finished():
            return  # told before a crash, and Ray's state is older than the storage
        state, values, reason = outcome(result, error, self._study.objectives)
        if reason is not None:
            set_attribute(self._optuna, number, "error", reason)
        self._optuna.tell(number, values, state)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the storage is the state. Ray wants a file."""
        Path(checkpoint_path).write_text("the state of this searcher is in study.db\n", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


def outcome(
    result: dict[str, Any] | None, error: bool, objectives: dict[str, str]
) -> tuple[TrialState, list[float] | None, str | None]:
    """How a trial ended, by its last result: Optuna's state, the objectives' values, and why it failed.

    The reason of an `error` is known to Ray's callback, not here.
    """
    if error:
        return TrialState.FAIL, None, None
    if not result or not result.get("fully_trained"):
        return TrialState.PRUNED, None, None
    values = [result.get(name) for name in objectives]
    for name, value in zip(objectives, values, strict=True):
        if not isinstance(value, int | float) or not math.isfinite(value):
            return TrialState.FAIL, None, f"{name} is {value}"
        if name == "kwh" and value <= 0:
            return TrialState.FAIL, None, "no energy was measured (kwh is 0)"
    return TrialState.COMPLETE, [float(value) for value in values if value is not None], None


def make_sampler(study: Study) -> optuna.samplers.BaseSampler:
    """Optuna's sampler that the study file names, seeded."""
    search = study.file.search
    match search.sampler:
        case "tpe":
            return optuna.samplers.TPESampler(seed=search.seed)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=search.seed)
        case "random":
            return optuna.samplers.RandomSampler(seed=search.seed)


def enqueue_fixed_points(optuna_study: optuna.Study, study: Study) -> None:
    """Baselines first, then the grid: once, when the study is made."""
    for index, point in enumerate(study.baselines):
        optuna_study.enqueue_trial(study.space.optuna_parameters(point), {"baseline": index, "point": point})
    if study.grid != [{}]:
        repeats = study.proposed_trials // len(study.grid)
        for point in study.grid * repeats:
            optuna_study.enqueue_trial(study.space.optuna_parameters(point))


def requeue(optuna_study: optuna.Study, known_trial_ids: set[str]) -> int:
    """After a crash: proposes again what Ray no longer knows, and what failed for bad input; their number.

    The old trials stay in the storage, failed and marked, since the energy that they used was used.
    """
    lost = [
        trial
        for trial in optuna_study.get_trials(deepcopy=False)
        if (trial.state == TrialState.RUNNING and trial.user_attrs.get("trial_id") not in known_trial_ids)
        or (trial.user_attrs.get("bad_input") and not is_superseded(trial))
    ]
    for trial in lost:
        kept: dict[str, Any] = {key: trial.user_attrs[key] for key in ("baseline", "point") if key in trial.user_attrs}
        optuna_study.enqueue_trial(trial.params, kept)
        set_attribute(optuna_study, trial.number, "superseded", True)
        if not trial.state.is_finished():
            set_attribute(optuna_study, trial.number, "error", "lost in a crash; its config runs again as a new trial")
            optuna_study.tell(trial.number, state=TrialState.FAIL)
    return len(lost)


def is_superseded(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial's config was proposed again under another number."""
    return bool(trial.user_attrs.get("superseded"))
