"""What the state of a trial is called, in tables, logs and metrics alike."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState

from sbp_tune.study.settle import is_held
from sbp_tune.study.storage import set_attribute, trial_of

_STATES = {"COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed"}
_WAITS = "waits"  # attribute of a trial: whether it is stopped at a rung, from which it may yet go on


def state_of(trial: FrozenTrial, unfinished: str = "running") -> str:
    """complete, stopped or failed; of a trial that runs, or will, `unfinished`."""
    if waits(trial):
        return "stopped"
    return "complete" if is_held(trial) else _STATES.get(trial.state.name, unfinished)


def waits(trial: FrozenTrial) -> bool:
    """Whether a trial is stopped at a rung where the scheduler may yet let it go on."""
    return trial.state == TrialState.RUNNING and bool(trial.user_attrs.get(_WAITS))


def note_waiting(storage: optuna.Study, number: int, now: bool) -> None:
    """Notes whether a trial waits now."""
    if waits(trial_of(storage, number)) != now:
        set_attribute(storage, number, _WAITS, now)
