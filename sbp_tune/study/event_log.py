"""What happened in a study, an event a line: log.jsonl of the study, logs/trial-0007.jsonl of each of its trials.

A line is a JSON object: time (UTC), level (info, warning, error), event, study, and what the event brings. The
study's log has all but the epochs, which epochs.jsonl has; a trial's log has all that happened to it. Beside it,
logs/trial-0007.log is for people: see `worker_log`.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sbp_tune.files import append_json_line
from sbp_tune.study.epochs import plain_values
from sbp_tune.study.watching import Attempt, Watcher
from sbp_tune.study.worker_log import TRIAL_LOGS, trial_log

STUDY_LOG = "log.jsonl"
_PLACE = ("hostname", "node_ip", "pid", "device", "gpu_uuid")  # of a result: where it comes from
_RAYS = (  # of a result: what an event says itself, and Ray's own counts
    *("trial_id", "date", "timestamp", "done", "training_iteration", "time_total_s", "time_since_restore"),
    *("iterations_since_restore", "experiment_tag", "timesteps_total", "episodes_total"),
)
_LAST = ("epoch", "val_accuracy", "kwh", "train_time_s")  # of the last result: what an ending says


class EventLog(Watcher):
    """Writes the events of a study into its directory."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._last: dict[str, dict[str, Any]] = {}  # of the attempts that run, by Ray's id: what their rows last said

    def study_began(self, facts: dict[str, Any]) -> None:
        self._write("study_began", facts)

    def study_ended(self, facts: dict[str, Any]) -> None:
        self._write("study_ended", facts, level="error" if "error" in facts else "info")

    def said(self, event: str, line: str) -> None:
        self._write(event, {"message": line}, level="warning")

    def trial_began(self, attempt: Attempt) -> None:
        self._last[attempt.trial_id] = {}
        self._both(attempt, "trial_began", {"kind": attempt.kind, "config": attempt.config})

    def epoch_ended(self, attempt: Attempt, row: dict[str, Any]) -> None:
        plain = plain_values(row)
        if not self._last[attempt.trial_id]:  # only with its first result a worker says where it runs
            self._both(attempt, "trial_placed", {name: plain[name] for name in _PLACE if name in plain})
        self._last[attempt.trial_id] = {name: plain[name] for name in _LAST if name in plain}
        figures = {name: value for name, value in plain.items() if name not in (*_PLACE, *_RAYS)}
        self._of_trial(attempt, self._line("epoch_ended", self._told_of(attempt) | figures))

    def trial_died(self, attempt: Attempt, why: str) -> None:
        last = self._last.pop(attempt.trial_id)
        self._both(attempt, "trial_died", {**last, "error": why}, level="warning")

    def trial_ended(self, attempt: Attempt, state: str, why: str | None) -> None:
        facts = {"state": state, **self._last.pop(attempt.trial_id), **({} if why is None else {"error": why})}
        self._both(attempt, "trial_ended", facts, level="error" if state == "failed" else "info")

    def _both(self, attempt: Attempt, event: str, facts: dict[str, Any], level: str = "info") -> None:
        line = self._line(event, self._told_of(attempt) | facts, level)
        append_json_line(self._path / STUDY_LOG, line, durable=False)
        self._of_trial(attempt, line)

    def _of_trial(self, attempt: Attempt, line: dict[str, Any]) -> None:
        folder = self._path / TRIAL_LOGS
        folder.mkdir(exist_ok=True)
        append_json_line(trial_log(folder, attempt.number, "jsonl"), line, durable=False)

    def _write(self, event: str, facts: dict[str, Any], level: str = "info") -> None:
        append_json_line(self._path / STUDY_LOG, self._line(event, facts, level), durable=False)

    def _told_of(self, attempt: Attempt) -> dict[str, Any]:
        return {"trial": attempt.number, "attempt": attempt.attempt, "trial_id": attempt.trial_id}

    def _line(self, event: str, facts: dict[str, Any], level: str = "info") -> dict[str, Any]:
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"time": time, "level": level, "event": event, "study": self._name, **_as_json(facts)}


def _as_json(value: Any) -> Any:
    """Numbers that JSON does not have, of a loss that diverged, say, as null."""
    if isinstance(value, dict):
        return {name: _as_json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
