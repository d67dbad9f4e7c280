"""More trials for a study that has ended, or was interrupted."""

from __future__ import annotations

import copy
from pathlib import Path

from sbp_tune.errors import InputError
from sbp_tune.fingerprint import fingerprint
from sbp_tune.study.file import Study
from sbp_tune.study.launch import go_on, stored_study
from sbp_tune.study.lock import only_writer
from sbp_tune.study.running import Ending
from sbp_tune.study.storage import open_study


def extend(path: Path, trials: str, address: str | None = None, cross_checked: bool = False) -> Ending:
    """Continues a study, finished or not, with more proposed trials: `trials` in all, or `+n` more.

    The sampler goes on from all that is known, with other random numbers. InputError where that is no more than the
    study has, or where its space has nothing left to propose.
    """
    stored_study(path)
    with only_writer(path):
        study = stored_study(path)
        if study.file.confirm is not None:
            raise InputError(f"{path}: a confirmation proposes no trials; `sbp-tune confirm` adds points and seeds")
        document = copy.deepcopy(study.document)
        document["search"]["trials"] = _more_trials(study, trials)
        try:
            extended = Study(document, study.source)
        except InputError as error:  # a pure grid, say
            raise InputError([f"--trials {trials}: {problem}" for problem in error.problems]) from error
        _check_something_is_left(extended, path)
        return go_on(extended, path, address, cross_checked)


def _more_trials(study: Study, trials: str) -> int:
    """What `search.trials` becomes."""
    present = study.file.search.trials
    number = trials.removeprefix("+")
    if not number.isdecimal():
        raise InputError(f"--trials: found {trials!r}; needs a whole number, in all as in 64, or more as in +32")
    wanted = int(number) + (present if trials.startswith("+") else 0)
    if wanted <= present:
        raise InputError(f"--trials: found {trials}; the study has {present} already, needs more than that, or +N")
    return wanted


def _check_something_is_left(study: Study, path: Path) -> None:
    """InputError where a space of so many points, and no more, has had each of them proposed."""
    trials = open_study(path).get_trials(deepcopy=False)
    configs = [trial.user_attrs.get("config") for trial in trials if "baseline" not in trial.user_attrs]
    tried, count = len({fingerprint(config) for config in configs if config is not None}), study.space.count()
    if count is not None and tried >= count:
        raise InputError(f"{path}: all {count} points of its space have been tried; nothing is left to propose")
