"""Ends trials that hang: an epoch that takes longer than `resources.epoch_timeout_s` costs its worker the process.

The driver does it, since a worker that hangs in C code, or was stopped, can do nothing about itself. Without a limit
nothing is watched: no number is right for every network and data set.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.tune import Callback

from sbp_tune.errors import EpochTimeout
from sbp_tune.study.ray_errors import LostWorker

_LOOK_S = 1.0


@dataclass
class _Watched:
    trial: Any
    epoch: int | None  # that it is in, from 1; None where only its checkpoint knows
    since: float
    killed: EpochTimeout | None = None


class EpochWatch(Callback):
    """Kills the worker of a trial that reports nothing for so many seconds. First in the list of callbacks.

    The time of an epoch runs from the report of the one before, and of the first from the start of the trial: reading
    the data and building the network belong to it, and writing a checkpoint to the epoch after it. What is killed is
    a death like any other (see `retries`); why is put into Ray's own record of the trial, where others look for it.
    """

    def __init__(
        self, limit_s: float, kill: Callable[[Any], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit_s, self._kill, self._clock = limit_s, kill, clock
        self._watched: dict[str, _Watched] = {}  # by Ray's id of the trial
        self._looked = clock()

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles callbacks when it starts; nothing of this one is wanted from there."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        epoch = None if "resume_from" in trial.config else 1
        self._watched[trial.trial_id] = _Watched(trial, epoch, self._clock())

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        watched = self._watched[trial.trial_id]
        watched.epoch, watched.since = result["epoch"] + 1, self._clock()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._watched.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        watched = self._watched.pop(trial.trial_id, None)
        if watched is not None and watched.killed is not None:
            trial.handle_error(LostWorker(watched.killed))  # in place of Ray's own, that its actor was killed

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now = self._clock()
        if (passed := now - self._looked) < _LOOK_S:
            return
        self._looked = now
        for watched in self._watched.values():
            watched.since += max(0.0, passed - 2 * _LOOK_S)  # the driver was busy: reports may lie there, not yet read
            if now - watched.since > self._limit_s and watched.killed is None:
                epoch = "the epoch that it went on with" if watched.epoch is None else f"epoch {watched.epoch}"
                watched.killed = EpochTimeout(f"{epoch} took longer than {self._limit_s:g} s: killed")
                self._kill(watched.trial)


def kill_worker(trial: Any) -> None:
    """Ends the process of a Ray trial, whatever it does; Ray tells of it later, as of any worker that died."""
    import ray

    actor = trial.temporary_state.ray_actor  # Ray has no public name for it
    if actor is not None:
        ray.kill(actor)
