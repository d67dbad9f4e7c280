"""Trackers that follow a search beside its own files: `search.trackers` in the study file names them.

A tracker is a file here with a function `check()`, which raises InputError where it cannot be used, and a class
`Client` (see `tracking.Client`), made with the study's name. Where it sends to is a matter of the environment, as
everywhere else (MLFLOW_TRACKING_URI, WANDB_API_KEY, ...): a study file is shown to others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from sbp_tune.errors import InputError
from sbp_tune.study.watching import Watcher


def check_trackers(names: Sequence[str]) -> None:
    """InputError, with a line for each that is not installed, not configured or cannot be reached."""
    problems = []
    for name in names:
        try:
            _module(name).check()
        except InputError as error:
            problems += [f"search.trackers: {name}: {problem}" for problem in error.problems]
    if problems:
        raise InputError(problems)


def make_trackers(names: Sequence[str], study: str, path: Path, warn: Callable[[str], None]) -> list[Watcher]:
    """A watcher for each tracker; warn: told in a line, once, of one that fails while the search runs."""
    from sbp_tune.study.trackers.tracking import Tracking

    return [Tracking(name, _module(name).Client(study), study, path, warn) for name in names]


def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name}_tracker")
