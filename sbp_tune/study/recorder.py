"""Writes down what happens while Ray runs: each epoch as it comes in, and why a trial failed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError
from ray.tune import Callback

from sbp_tune.errors import DataError, MeterError, OutOfMemory, SbpTuneError, StorageError
from sbp_tune.study.duplicates import DOES_NOT_FIT
from sbp_tune.study.epochs import append_row
from sbp_tune.study.file import Study
from sbp_tune.study.nodes import TrialNodes, is_full_disk
from sbp_tune.study.ray_errors import unwrapped
from sbp_tune.study.retries import is_death, note_death, note_misplaced
from sbp_tune.study.settle import settle
from sbp_tune.study.storage import open_study, set_attribute

_IDS = re.compile(r"^\s*(class_name|actor_id|namespace|name): .*$", re.MULTILINE)  # of Ray's own, for nobody to read
_LONGEST = 400  # characters


class Recorder(Callback):
    """Logs results before anybody decides on them, and tells Optuna of failed trials.

    A DataError, a MeterError or a disk that takes nothing is not the trial's own fault: every trial would fail. Then
    it is kept as `stopped_by`, `stop` is called, and the trial is left unfinished, for `resume` to run again. One whose
    worker died is left unfinished as well, for the searcher to suggest again, up to `search.max_failures` times; if it
    had been trained by then, it is complete. So is one that its node is to blame for, of which `nodes` know.
    """

    def __init__(self, study: Study, path: Path, stop: Callable[[], None], nodes: TrialNodes | None = None) -> None:
        self._study, self._path, self._stop, self._nodes = study, path, stop, nodes
        self.stopped_by: SbpTuneError | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles callbacks when it starts; nothing of this one is wanted from there."""
        return {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        append_row(self._path, {**result, "trial_id": trial.trial_id})

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        raised, cause, number = error_of(trial), cause_of(trial), number_in(trial)
        if self._nodes is not None and (fault := self._nodes.fault_of(raised)):
            if note_misplaced(open_study(self._path), number, trial.trial_id, fault):
                return
        elif isinstance(cause, OSError) and is_full_disk(cause):
            cause = StorageError(f"{cause.filename or self._path}: {cause.strerror or cause}")
        if isinstance(cause, DataError | MeterError | StorageError):
            if self.stopped_by is None:
                self.stopped_by = cause
                self._stop()
            return
        storage, why = open_study(self._path), reason(cause)
        if isinstance(cause, OutOfMemory):
            set_attribute(storage, number, DOES_NOT_FIT, True)
        if is_death(cause):
            if trial.last_result.get("fully_trained"):  # between its last result and Ray's taking it up
                settle(storage, number, trial.last_result, self._study)
                return
            node = trial.last_result.get("node_ip")
            deaths = note_death(storage, number, trial.trial_id, f"{why} (on {node})" if node else why)
            if deaths <= self._study.file.search.max_failures:
                return
            why = f"given up after {deaths} attempt{'s' if deaths > 1 else ''} that died: {why}"
        settle(storage, number, None, self._study, error=why)


def number_in(trial: Any) -> int:
    """Optuna's number of a Ray trial: the searcher wrote it into the lease."""
    return int(trial.config["lease"]["trial"])


def reason(error: BaseException) -> str:
    """One line that says why: our own errors speak for themselves, others bring their class; Ray's are cut short."""
    text = " ".join(_IDS.sub("", str(error)).split())
    if isinstance(error, RayError) and not isinstance(error, RayTaskError) and len(text) > _LONGEST:
        text = f"{text[:_LONGEST].rpartition(' ')[0]} ..."  # pages, of one that ran out of memory
    return text if isinstance(error, SbpTuneError) else f"{type(error).__name__}: {text}".rstrip(": ")


def error_of(trial: Any) -> BaseException:
    """The exception that ended a Ray trial, as Ray raised it."""
    # trial.get_pickled_error() looks where Ray copies it later.
    file = trial.pickled_error_file
    error = cloudpickle.loads(Path(file).read_bytes()) if file and Path(file).exists() else None
    return error or RuntimeError("the trial ended without a result")


def cause_of(trial: Any) -> BaseException:
    """The exception that a Ray trial raised, out of Ray's wrappings."""
    return unwrapped(error_of(trial))
