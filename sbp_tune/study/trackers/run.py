"""A trial as a tracker sees it: one run, over all its attempts and all starts of the study."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sbp_tune.study.results import METRICS, flat_columns, load_study
from sbp_tune.study.states import state_of
from sbp_tune.study.storage import attempts, open_study
from sbp_tune.study.watching import Attempt


@dataclass(eq=False)
class Run:
    """What a tracker is told of a trial; Ray's logger callbacks take it for one of Ray's trials.

    run_id: names it in all starts of the study; config: by dotted key, plain values; local_path: a folder of its own;
    epochs: its figures by epoch, as far as an earlier start of the study came with it.
    """

    number: int
    name: str
    run_id: str
    attempt: int
    kind: str
    config: dict[str, Any]
    local_path: str
    experiment_dir_name: str
    state: str | None = None
    why: str | None = None
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    last_result: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, attempt: Attempt, folder: Path, study: str) -> Run:
        """The run of which this is an attempt. folder: of the tracker, for all its runs."""
        name = f"trial-{attempt.number:04d}"
        config = {key.removeprefix("config."): value for key, value in flat_columns(attempt.config).items()}
        number, place, kind = attempt.number, attempt.attempt, attempt.kind
        return cls(number, name, attempt.first_id, place, kind, config, str(folder / name), study)

    def __str__(self) -> str:
        return self.name

    @property
    def trial_id(self) -> str:
        """As Ray's trials call it."""
        return self.run_id

    @property
    def evaluated_params(self) -> dict[str, Any]:
        """Likewise."""
        return self.config

    def init_local_path(self) -> None:
        """Makes the folder."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)


def figures(row: Mapping[Any, Any]) -> dict[str, float]:
    """The METRICS of an epoch that are numbers."""
    return {name: float(row[name]) for name in METRICS if _is_number(row.get(name))}


def over_now(path: Path) -> frozenset[int]:
    """Numbers of the trials that have begun and are over."""
    trials = open_study(path).get_trials(deepcopy=False)
    return frozenset(trial.number for trial in trials if attempts(trial) and state_of(trial) != "running")


def past_epochs(path: Path) -> dict[int, dict[int, dict[str, float]]]:
    """The figures of all trials, by number and epoch, as the tables have them now."""
    past: dict[int, dict[int, dict[str, float]]] = {}
    for row in load_study(path).epochs.to_dict("records"):
        past.setdefault(int(row["trial"]), {})[int(row["epoch"])] = figures(row)
    return past


def past_runs(path: Path, folder: Path, study: str, numbers: Collection[int]) -> list[Run]:
    """The runs of trials that are over, with their ends."""
    runs = []
    for record in open_study(path).get_trials(deepcopy=False):
        if record.number in numbers:
            run = Run.of(Attempt.of(record, attempts(record)[0]), folder, study)
            run.state = state_of(record)
            run.why = None if run.state == "complete" else record.user_attrs.get("error")
            runs.append(run)
    return runs


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
