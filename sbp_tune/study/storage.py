"""The Optuna storage of a study directory: study.db, which optuna-dashboard opens as well."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from sqlalchemy.engine import URL

from sbp_tune.study.writer_storage import shared


def storage_url(path: Path) -> str:
    """URL of a study directory's storage, for optuna-dashboard too."""
    return URL.create("sqlite", database=str(path.resolve() / "study.db")).render_as_string()  # quotes ? and %


def _storage(path: Path) -> BaseStorage:
    return shared(path, lambda: _database(path))


def _database(path: Path) -> optuna.storages.RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # A second reader (the dashboard) may hold the file for a moment.
    return optuna.storages.RDBStorage(storage_url(path), engine_kwargs={"connect_args": {"timeout": 60}})


def create_study(path: Path, name: str, objectives: dict[str, str], attributes: dict[str, Any]) -> optuna.Study:
    """Makes study.db with one direction for each objective."""
    study = optuna.create_study(
        storage=_storage(path),
        study_name=name,
        directions=["maximize" if mode == "max" else "minimize" for mode in objectives.values()],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(objectives))  # the dashboard's axis titles
    for key, value in attributes.items():
        study.set_user_attr(key, value)
    return study


def open_study(path: Path, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    """Opens the one study of a directory that `create_study` made, whatever its name."""
    return optuna.load_study(storage=_storage(path), study_name=None, sampler=sampler)


def trial_of(study: optuna.Study, number: int) -> optuna.trial.FrozenTrial:
    """One trial by its number. Optuna's `get_trials` would read every unfinished one again."""
    return study._storage.get_trial(_id_of(study, number))


def set_attribute(study: optuna.Study, number: int, key: str, value: Any) -> None:
    """Sets a user attribute of a trial that this process did not ask for; Optuna has no public way."""
    study._storage.set_trial_user_attr(_id_of(study, number), key, value)


def _id_of(study: optuna.Study, number: int) -> int:
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def attempts(trial: optuna.trial.FrozenTrial) -> list[str]:
    """Ray's trial ids under which a trial has run, oldest first."""
    return list(trial.user_attrs.get("attempts", []))


def number_of(study: optuna.Study, trial_id: str) -> int | None:
    """Optuna's number of the trial of which a Ray trial id is an attempt."""
    trials = reversed(study.get_trials(deepcopy=False))  # asked about soon after it was asked for
    return next((trial.number for trial in trials if trial_id in attempts(trial)), None)
