"""The Optuna storage of a study directory: study.db, which optuna-dashboard opens as well."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.trial import TrialState
from sqlalchemy.engine import URL

from sbp_tune.study.lock import kept_by_writer


def storage_url(path: Path) -> str:
    """URL of a study directory's storage, for optuna-dashboard too."""
    return URL.create("sqlite", database=str(path.resolve() / "study.db")).render_as_string()  # quotes ? and %


class _OnlyWriter(_CachedStorage):
    """A storage that reads those trials again that were written through it, and new ones.

    Optuna's reads all unfinished ones whenever it is asked for trials, since another process may have written: half a
    millisecond each, several times a trial, and every waiting point of a grid is one. Here no other process may.
    """

    def __init__(self, backend: optuna.storages.RDBStorage) -> None:
        super().__init__(backend)
        self._written: set[int] = set()

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        with self._lock:
            known = self._studies.setdefault(study_id, _StudyInfo())
            written, self._written = self._written, set()
            known.unfinished_trial_ids = set(written)
            known.last_finished_trial_id = max(self._trial_id_to_study_id_and_number, default=-1)
        try:
            super()._read_trials_from_remote_storage(study_id)
        except BaseException:
            self._written |= written
            raise

    def create_new_trial(self, study_id: int, template_trial: optuna.trial.FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id, template_trial)
        self._written.add(trial_id)
        return trial_id

    def set_trial_param(self, trial_id: int, *values: Any) -> None:
        self._written.add(trial_id)
        super().set_trial_param(trial_id, *values)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        self._written.add(trial_id)
        return super().set_trial_state_values(trial_id, state, values)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._written.add(trial_id)
        super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._written.add(trial_id)
        super().set_trial_system_attr(trial_id, key, value)


def _storage(path: Path) -> optuna.storages.BaseStorage:
    """One for all who ask while this process is the only writer, else another each time."""
    kept = kept_by_writer(path)
    if kept is None:
        return _database(path)
    if "storage" not in kept:
        kept["storage"] = _OnlyWriter(_database(path))
    return cast(_OnlyWriter, kept["storage"])


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
