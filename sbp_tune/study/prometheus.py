"""A study in figures that Prometheus can scrape, by Ray's own metrics.

Ray puts `ray_` before their names and serves them on each node where `ray[default]` is installed (the extra
`metrics`); elsewhere they go nowhere, at no cost.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import moocore
import numpy as np
from optuna.trial import FrozenTrial, TrialState

from sbp_tune.study.duplicates import was_left_out
from sbp_tune.study.file import Study
from sbp_tune.study.gain import Gain
from sbp_tune.study.settle import first_values, is_feasible, objective_values
from sbp_tune.study.states import state_of
from sbp_tune.study.storage import open_study
from sbp_tune.study.watching import Attempt, Watcher

_PERIOD_S = 5.0  # Ray reports every 10 s
_STATES = ("running", "complete", "stopped", "failed", "interrupted")


class Prometheus(Watcher):
    """sbp_kwh_total, sbp_trials by state, sbp_front_size, sbp_hypervolume, each with the study's name.

    kwh: what all trials have used so far. sbp_hypervolume is that of `Gain`: of the front, with a reference that stands
    from the first trial on; there is none before that trial is complete.
    """

    def __init__(self, study: Study, path: Path, kwh: Callable[[], float]) -> None:
        from ray.util.metrics import Counter as RayCounter
        from ray.util.metrics import Gauge

        self._study, self._storage, self._kwh = study, open_study(path), kwh
        name = {"study": study.file.name}

        def made(kind: Any, metric: str, description: str, *labels: str) -> Any:
            return kind(metric, description, tag_keys=("study", *labels)).set_default_tags(name)

        self._energy = made(RayCounter, "sbp_kwh_total", "kWh of all trials, of earlier starts too")
        self._trials = made(Gauge, "sbp_trials", "Trials that have begun, by state", "state")
        self._front = made(Gauge, "sbp_front_size", "Trials on the front")
        self._volume = made(Gauge, "sbp_hypervolume", "Hypervolume of the front; 1: a perfect network for nothing")
        self._told_kwh, self._next = 0.0, 0.0

    def study_began(self, facts: dict[str, Any]) -> None:
        self._update()

    def trial_began(self, attempt: Attempt) -> None:
        self._update_now_and_then()

    def epoch_ended(self, attempt: Attempt, row: dict[str, Any]) -> None:
        self._update_now_and_then()

    def trial_ended(self, attempt: Attempt, state: str, why: str | None) -> None:
        self._update_now_and_then()

    def study_ended(self, facts: dict[str, Any]) -> None:
        self._update("interrupted")

    def _update_now_and_then(self) -> None:
        if time.monotonic() >= self._next:
            self._update()

    def _update(self, unfinished: str = "running") -> None:
        """Counts anew what the storage has: exact whatever happened, and seldom enough to cost nothing."""
        trials = self._storage.get_trials(deepcopy=False)
        begun = [trial for trial in trials if trial.state.name != "WAITING" and not was_left_out(trial)]
        states = Counter(state_of(trial, unfinished) for trial in begun)
        for state in _STATES:
            self._trials.set(states[state], {"state": state})
        modes = list(self._study.objectives.values())
        points = np.array([objective_values(trial) for trial in trials if self._is_candidate(trial)], dtype=float)
        points = points.reshape(-1, len(modes))
        on_front = moocore.is_nondominated(points, maximise=[mode == "max" for mode in modes], keep_weakly=True)
        self._front.set(int(np.count_nonzero(on_front)))
        if (first := first_values(trials)) is not None:
            self._volume.set(Gain(modes, first).volume_of(points))
        if (more := self._kwh() - self._told_kwh) > 0:  # a counter takes nothing else
            self._energy.inc(more)
            self._told_kwh += more
        self._next = time.monotonic() + _PERIOD_S

    def _is_candidate(self, trial: FrozenTrial) -> bool:
        """Whether a trial may be on the front."""
        return trial.state == TrialState.COMPLETE and (not self._study.constraints or is_feasible(trial) is True)
