"""Hands what happens in a study to a tracker, in a thread of its own: a slow or broken one holds up no trial."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sbp_tune.study.results import METRICS, flat_columns
from sbp_tune.study.watching import Attempt, Watcher

_LAST_WORDS_S = 60.0  # how long the end of a search waits for what a tracker has not taken yet


@dataclass(eq=False)
class Run:
    """A trial as a tracker sees it, over all its attempts; Ray's logger callbacks take it for one of Ray's trials.

    run_id: names it in all starts of the study; config: by dotted key, plain values; local_path: a folder of its own.
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
    last_result: dict[str, Any] = field(default_factory=dict)

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


class Client(Protocol):
    """What a tracker's file implements; any exception is told to the user once, and the search goes on."""

    def open(self) -> None:
        """The search begins."""

    def begin(self, run: Run) -> None:
        """A trial begins, or goes on (`run.attempt` is above 0) after an earlier start or a death."""

    def log(self, run: Run, epoch: int, metrics: dict[str, float]) -> None:
        """An epoch has ended; the columns of the tables that are numbers."""

    def end(self, run: Run) -> None:
        """A trial has ended; `run.state` and `run.why` say how."""

    def close(self) -> None:
        """The search has ended."""


class Tracking(Watcher):
    """A watcher that feeds a tracker's client."""

    def __init__(self, name: str, client: Client, study: str, path: Path, warn: Callable[[str], None]) -> None:
        self._name, self._client, self._study, self._path, self._warn = name, client, study, path, warn
        self._runs: dict[int, Run] = {}  # by number of the trial, while it is not over
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._failed = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)

    def study_began(self, facts: dict[str, Any]) -> None:
        self._queue.put(self._client.open)
        self._thread.start()

    def trial_began(self, attempt: Attempt) -> None:
        run = self._runs.get(attempt.number)
        if run is None:
            name = f"trial-{attempt.number:04d}"
            config = {key.removeprefix("config."): value for key, value in flat_columns(attempt.config).items()}
            folder = str(self._path / self._name / name)
            run = self._runs[attempt.number] = Run(
                attempt.number, name, attempt.first_id, attempt.attempt, attempt.kind, config, folder, self._study
            )
            self._queue.put(lambda: self._client.begin(run))

    def epoch_ended(self, attempt: Attempt, row: dict[str, Any]) -> None:
        run, epoch = self._runs[attempt.number], int(row.get("epoch") or row["training_iteration"])
        metrics = {name: float(row[name]) for name in METRICS if _is_number(row.get(name))}
        self._queue.put(lambda: self._client.log(run, epoch, metrics))

    def trial_ended(self, attempt: Attempt, state: str, why: str | None) -> None:
        run = self._runs.pop(attempt.number)
        run.state, run.why = state, why
        self._queue.put(lambda: self._client.end(run))

    def study_ended(self, facts: dict[str, Any]) -> None:
        if not self._thread.is_alive():
            return
        self._queue.put(self._client.close)
        self._queue.put(None)
        self._thread.join(_LAST_WORDS_S)
        if self._thread.is_alive():
            self._warn(
                f"{self._name} had not taken everything {_LAST_WORDS_S:g} s after the end; the rest is lost to it"
            )

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            try:
                call()
            except Exception as error:  # whatever a tracker raises, the search is not about it
                if not self._failed:
                    self._failed = True
                    text = " ".join(f"{type(error).__name__}: {error}".split())
                    self._warn(f"{self._name} failed, what it misses is in the study's own files: {text}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
