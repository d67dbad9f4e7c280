"""Writes down what happens while Ray runs: each epoch as it comes in, and why a trial failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from ray import cloudpickle
from ray.exceptions import RayTaskError
from ray.tune import Callback

from sbp_tune.errors import DataError, MeterError, SbpTuneError
from sbp_tune.study.epochs import append_row
from sbp_tune.study.storage import number_of, open_study, set_attribute


class Recorder(Callback):
    """Logs results before anybody decides on them, and tells Optuna of failed trials.

    A DataError or a MeterError is not the trial's own fault: every trial would fail. Then it is kept as
    `stopped_by`, `stop` is called, and the trial is left unfinished, for `resume` to run again.
    """

    def __init__(self, path: Path, stop: Callable[[], None]) -> None:
        self._path, self._stop = path, stop
        self.stopped_by: SbpTuneError | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles callbacks when it starts; nothing of this one is wanted from there."""
        return {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        append_row(self._path, {**result, "trial_id": trial.trial_id})

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        cause = cause_of(trial)
        if isinstance(cause, DataError | MeterError):
            if self.stopped_by is None:
                self.stopped_by = cause
                self._stop()
            return
        study = open_study(self._path)
        number = number_of(study, trial.trial_id)
        if number is not None:
            set_attribute(study, number, "error", reason(cause))
            study.tell(number, state=optuna.trial.TrialState.FAIL)


def reason(error: BaseException) -> str:
    """One line that says why: our own errors speak for themselves, others bring their class."""
    text = " ".join(str(error).split())
    return text if isinstance(error, SbpTuneError) else f"{type(error).__name__}: {text}".rstrip(": ")


def cause_of(trial: Any) -> BaseException:
    """The exception that a Ray trial raised, out of Ray's wrappings."""
    # trial.get_pickled_error() looks where Ray copies it later.
    file = trial.pickled_error_file
    error = cloudpickle.loads(Path(file).read_bytes()) if file and Path(file).exists() else None
    while isinstance(error, RayTaskError) and error.cause is not None:
        error = error.cause
    return error or RuntimeError("the trial ended without a result")
