"""What the state of a trial is called, in tables, logs and metrics alike."""

from __future__ import annotations

from optuna.trial import FrozenTrial

from sbp_tune.study.settle import is_held

_STATES = {"COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed"}


def state_of(trial: FrozenTrial, unfinished: str = "running") -> str:
    """complete, stopped or failed; of a trial that may yet go on `unfinished`."""
    return "complete" if is_held(trial) else _STATES.get(trial.state.name, unfinished)
