"""The scheduler of a study: which one its file names, and what it is told of the trials."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from sbp_tune.study.epochs import read_log
from sbp_tune.study.file import Study
from sbp_tune.study.promotion import Promotion
from sbp_tune.study.scheduler import MOASHA, Contestant
from sbp_tune.study.sections import SearchConfig
from sbp_tune.study.stopping import ladder_of, ranked_objectives
from sbp_tune.study.storage import attempts, number_of, open_study, trial_of


def make_scheduler(study: Study, path: Path) -> MOASHA | None:
    """The scheduler that a study file names, as it was when the study in this directory was left; None for none."""
    search = study.file.search
    objectives = ranked_objectives(search, study.objectives)
    if not objectives:
        return None
    scheduler = new_scheduler(search, objectives, _Contestants(open_study(path)), study.longest_training)
    scheduler.replay(read_log(path))
    return scheduler


def new_scheduler(
    search: SearchConfig, objectives: dict[str, str], contestant_of: Callable[[str], Contestant | None], longest: int
) -> MOASHA:
    """The scheduler by the search section, before the first result. longest: epochs that a trial may train."""
    kind = Promotion if search.halving == "promotion" else MOASHA
    return kind(objectives, contestant_of, ladder_of(search, longest), search.rank, search.tie)


class _Contestants:
    """Trials of a study by Ray's ids of their attempts."""

    def __init__(self, storage: optuna.Study) -> None:
        self._storage = storage
        self._known = {
            attempt: _of_trial(trial) for trial in storage.get_trials(deepcopy=False) for attempt in attempts(trial)
        }

    def __call__(self, trial_id: str) -> Contestant | None:
        if trial_id not in self._known and (number := number_of(self._storage, trial_id)) is not None:
            self._known[trial_id] = _of_trial(trial_of(self._storage, number))
        return self._known.get(trial_id)


def _of_trial(trial: optuna.trial.FrozenTrial) -> Contestant:
    return contestant(trial.number, trial.user_attrs["config"], exempt="baseline" in trial.user_attrs)


def contestant(number: int, config: dict[str, Any], exempt: bool = False) -> Contestant:
    """What the scheduler has to know of a trial, by its complete config."""
    steady = config["lr_schedule"]["name"] == "constant" and not config["sparsity"].get("dense_tail")
    return Contestant(number, config["epochs"], math.inf if steady else config["epochs"], exempt)
