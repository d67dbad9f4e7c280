"""The Optuna storage of a study: by default study.db in its directory, which optuna-dashboard opens as well."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from sbp_tune.errors import InputError, StorageError
from sbp_tune.files import read_yaml
from sbp_tune.study.storage_url import EXTRAS, FILES, database_url
from sbp_tune.study.writer_storage import shared

PATIENCE_S = 60
"""How long a locked study.db is waited for: a second reader (the dashboard) may hold it for a moment."""

_CONNECT_S = 10


def check_directory(path: Path) -> None:
    """InputError where a path is no study directory."""
    for needed in ("study.yaml", FILES.get(_named(path)[0], "study.yaml")):
        if not (path / needed).is_file():
            raise InputError(f"{path}: not a study directory: it has no {needed}")


def create_study(path: Path, name: str, objectives: dict[str, str], attributes: dict[str, Any]) -> optuna.Study:
    """Makes the study in the storage that study.yaml names, with one direction for each objective.

    InputError where the database has a study of this name; StorageError where it cannot be reached.
    """
    with storage_errors(path):
        try:
            study = optuna.create_study(
                storage=_storage(path, new=True),
                study_name=name,
                directions=["maximize" if mode == "max" else "minimize" for mode in objectives.values()],
            )
        except optuna.exceptions.DuplicatedStudyError:
            where = _shown(path)
            raise InputError(f"{where}: has a study named {name} already; give another --name") from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(objectives))  # the dashboard's axis titles
        for key, value in attributes.items():
            study.set_user_attr(key, value)
    return study


def open_study(path: Path, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    """Opens the study of a directory. StorageError where its storage is gone or cannot be reached."""
    kind, name = _named(path)
    with storage_errors(path):
        try:
            # In a file of its own it is the only one, whatever its name.
            return optuna.load_study(
                storage=_storage(path, new=False), study_name=None if kind in FILES else name, sampler=sampler
            )
        except (KeyError, ValueError) as error:
            raise StorageError(f"{_shown(path)}: the study {name or path.name} is not in it") from error


def drop_study(study: optuna.Study) -> None:
    """Takes a study out of its storage."""
    study._storage.delete_study(study._study_id)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """What the storage of a study directory complains of, as one StorageError that names the storage."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        cause = error if isinstance(error, SQLAlchemyError) else error.__cause__ or error
        said = " ".join(str(getattr(cause, "orig", None) or cause).split())
        raise StorageError(f"{_shown(path)}: {said}") from error


def mend(path: Path) -> None:
    """Cuts the line that a crash or a full disk left unfinished in a journal; only for the one writer of the study."""
    journal = path / FILES["journal"]
    if journal.is_file() and not (text := journal.read_bytes()).endswith(b"\n"):
        with journal.open("r+b") as file:
            file.truncate(text.rfind(b"\n") + 1)


def _storage(path: Path, new: bool) -> BaseStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what it warns of before it raises
    kind, _ = _named(path)
    file = path.resolve() / FILES.get(kind, "")
    if kind in FILES and not new and not file.is_file():  # Optuna would make an empty one
        raise StorageError(f"{file}: the storage of this study is gone")
    return _opened(path, kind, file, new) if new else shared(path, lambda: _opened(path, kind, file, new))


def _opened(path: Path, kind: str, file: Path, new: bool) -> BaseStorage:
    if kind == "journal":
        return JournalStorage(JournalFileBackend(str(file)))
    if kind == "sqlite":
        # As a URI, in which mode rw means: not made where it is missing.
        database = f"file:{quote(str(file))}"
        url = URL.create("sqlite", database=database, query={"mode": "rwc" if new else "rw", "uri": "true"})
    else:
        url = database_url(kind)
    backend = url.get_backend_name()
    connect = {"timeout": PATIENCE_S} if backend == "sqlite" else {"connect_timeout": _CONNECT_S}
    options = {"connect_args": connect, "pool_pre_ping": backend != "sqlite"}  # a server may have been restarted
    try:
        return RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=options)
    except ImportError as error:
        install = f"pip install 'sbp-tune[{EXTRAS.get(backend, backend)}]'"
        raise InputError(f"{_shown(path)}: its driver is missing ({error.__cause__ or error}): {install}") from error


def _named(path: Path) -> tuple[str, str | None]:
    """The storage that a study directory names, and the study's name in it; SQLite where there is no study.yaml yet."""
    file = path / "study.yaml"
    return _read(file, file.stat().st_mtime_ns) if file.is_file() else ("sqlite", None)


@functools.lru_cache(maxsize=64)
def _read(file: Path, changed: int) -> tuple[str, str | None]:
    document = read_yaml(file)
    search = document.get("search") if isinstance(document, dict) else None
    storage = search.get("storage") if isinstance(search, dict) else None
    return str(storage or "sqlite"), document.get("name") if isinstance(document, dict) else None


def _shown(path: Path) -> str:
    """The storage as a person knows it; its URL holds no password."""
    kind, _ = _named(path)
    return str(path / FILES[kind]) if kind in FILES else kind


def trial_of(study: optuna.Study, number: int) -> optuna.trial.FrozenTrial:
    """One trial by its number. Optuna's `get_trials` would read every unfinished one again."""
    return study._storage.get_trial(_id_of(study, number))


def set_attribute(study: optuna.Study, number: int, key: str, value: Any) -> None:
    """Sets a user attribute of a trial that this process did not ask for; Optuna has no public way."""
    study._storage.set_trial_user_attr(_id_of(study, number), key, value)


def _id_of(study: optuna.Study, number: int) -> int:
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def set_constraint(study: optuna.Study, number: int, key: str, value: float) -> None:
    """Sets a constraint of such a trial, which is met if it is 0 or less: where `trial.set_constraint` puts it."""
    study._storage.set_trial_system_attr(_id_of(study, number), f"constraints:{key}", value)


def put_back(study: optuna.Study, number: int) -> None:
    """Makes a trial that was proposed and never started wait again, as it is; it is the first to be asked for."""
    study._storage.set_trial_state_values(_id_of(study, number), TrialState.WAITING)


REFUSED_NODES = "refused_nodes"
"""Attribute of a study: machines on which no trial could run, a line each with the reason."""


def attempts(trial: optuna.trial.FrozenTrial) -> list[str]:
    """Ray's trial ids under which a trial has run, oldest first."""
    return list(trial.user_attrs.get("attempts", []))


def number_of(study: optuna.Study, trial_id: str) -> int | None:
    """Optuna's number of the trial of which a Ray trial id is an attempt."""
    trials = reversed(study.get_trials(deepcopy=False))  # asked about soon after it was asked for
    return next((trial.number for trial in trials if trial_id in attempts(trial)), None)
