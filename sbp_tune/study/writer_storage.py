"""The storage of a study for the one process that may write to it: it need not ask what others wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.trial import TrialState

from sbp_tune.study.lock import kept_by_writer


def shared(path: Path, make: Callable[[], BaseStorage]) -> BaseStorage:
    """A storage that `make` opens; one for all who ask while this process is the study's only writer."""
    kept = kept_by_writer(path)
    if kept is None:
        return make()
    if "storage" not in kept:
        made = make()
        kept["storage"] = _OnlyWriter(made) if isinstance(made, RDBStorage) else made
    return cast(BaseStorage, kept["storage"])


class _OnlyWriter(_CachedStorage):
    """A storage that reads those trials again that were written through it, and new ones.

    Optuna's reads all unfinished ones whenever it is asked for trials, since another process may have written: half a
    millisecond each, several times a trial, and every waiting point of a grid is one. Here no other process may.
    """

    def __init__(self, backend: RDBStorage) -> None:
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
