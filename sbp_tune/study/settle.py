"""How a trial ended, as Optuna is told: only a fully trained one is complete, and it meets the constraints or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sbp_tune.study.file import Study
from sbp_tune.study.storage import set_attribute, set_constraint, trial_of
from sbp_tune.study.ties import tied

_REFERENCE = "reference"  # attribute of trial 0: its columns that constraints compare with
_HELD = "held"  # attribute of a trial that was trained to its end before trial 0 was: what to tell then


def settle(
    storage: optuna.Study, number: int, result: dict[str, Any] | None, study: Study, error: str | None = None
) -> None:
    """Tells Optuna how an unfinished trial ended, by its last result, or by an error; a finished one stays as it is.

    A trial that is to be compared with the baseline is held back until the baseline has ended: Optuna takes no
    constraint of a finished trial. With `search.tie`, energies are told in steps of that ratio, and what they were
    stays in the attribute `values`.
    """
    if trial_of(storage, number).state.is_finished():
        return
    state, values, reason = (TrialState.FAIL, None, error) if error else outcome(result, study.objectives)
    if state == TrialState.COMPLETE and result is not None and study.constraints:
        needed = {*study.objectives, *(constraint.column for constraint in study.constraints)}
        columns = {name: result.get(name) for name in needed}
        if number == 0:
            set_attribute(storage, 0, _REFERENCE, columns)
        elif _baseline_is_awaited(storage, study):
            set_attribute(storage, number, _HELD, columns)
            return
        try:
            for text, excess in _excesses(storage, columns, study).items():
                set_constraint(storage, number, text, excess)
        except ValueError as problem:
            state, values, reason = TrialState.FAIL, None, f"search.constraints: {problem}"
    if reason is not None:
        set_attribute(storage, number, "error", reason)
    if values is not None and (tie := study.file.search.tie) > 0:
        set_attribute(storage, number, "values", dict(zip(study.objectives, values, strict=True)))
        values = [tied(name, value, tie) for name, value in zip(study.objectives, values, strict=True)]
    storage.tell(number, values, state)
    if number == 0:
        for trial in storage.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if is_held(trial):
                settle(storage, trial.number, {**trial.user_attrs[_HELD], "fully_trained": True}, study)


def is_held(trial: FrozenTrial) -> bool:
    """Whether a trial has been trained to its end and only waits for the baseline to be compared with."""
    return trial.state == TrialState.RUNNING and _HELD in trial.user_attrs


def objective_values(trial: FrozenTrial) -> list[float]:
    """Objectives of a complete trial, exact also where the sampler was told steps."""
    return list(trial.user_attrs["values"].values() if "values" in trial.user_attrs else trial.values)


def first_values(trials: Sequence[FrozenTrial]) -> list[float] | None:
    """Objectives of the first trial by number that is complete; None while an earlier one may yet be."""
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            return objective_values(trial)
        if not trial.state.is_finished():
            return None
    return None


def baseline_problem(storage: optuna.Study, study: Study) -> str | None:
    """Why no trial can be compared with the baseline, ever; None while there is nothing wrong."""
    if not any(constraint.is_relative for constraint in study.constraints):
        return None
    baseline = trial_of(storage, 0)
    if not baseline.state.is_finished() or baseline.state == TrialState.COMPLETE:
        return None
    why = baseline.user_attrs.get("error", "it was stopped before its end")
    return f"trial 0, the baseline that search.constraints compare with, has no result: {why}"


def is_feasible(trial: FrozenTrial) -> bool | None:
    """Whether a complete trial meets all constraints; None where there are none, or where it is not known."""
    constraints = trial.constraints.values()
    return all(excess <= 0 for excess in constraints) if constraints and trial.state == TrialState.COMPLETE else None


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


def _baseline_is_awaited(storage: optuna.Study, study: Study) -> bool:
    relative = any(constraint.is_relative for constraint in study.constraints)
    return relative and not trial_of(storage, 0).state.is_finished()


def _excesses(storage: optuna.Study, columns: dict[str, Any], study: Study) -> dict[str, float]:
    """What to tell of each constraint, by its text; ValueError where one cannot be told, and says why."""
    if problem := baseline_problem(storage, study):
        raise ValueError(problem)
    reference = trial_of(storage, 0).user_attrs.get(_REFERENCE, {})
    return {constraint.text: constraint.excess(columns, reference) for constraint in study.constraints}
