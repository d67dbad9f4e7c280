"""Hands what happens in a study to a tracker, in a thread of its own: a slow or broken one holds up no trial."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from sbp_tune.study.trackers.run import Run, figures, over_now, past_epochs, past_runs
from sbp_tune.study.watching import Attempt, Watcher

_LAST_WORDS_S = 60.0  # how long the end of a search waits for what a tracker has not taken yet


class Client(Protocol):
    """What a tracker's file implements; any exception is told to the user once, and the search goes on."""

    def open(self) -> None:
        """The search begins."""

    def catch_up(self, runs: Sequence[Run]) -> None:
        """The search was started before: trials that were over by then, of which not all may have been told.

        Between what the storage knows and what the tracker was told, a search can be killed, or a server go.
        """

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
        self._past: dict[int, dict[int, dict[str, float]]] = {}  # epochs of earlier starts, by number of the trial
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._failed = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)

    def study_began(self, facts: dict[str, Any]) -> None:
        self._queue.put(self._client.open)
        if facts.get("resumed"):
            over = over_now(self._path)
            self._queue.put(lambda: self._catch_up(over))
        self._thread.start()

    def trial_began(self, attempt: Attempt) -> None:
        run = self._runs.get(attempt.number)
        if run is None:
            run = self._runs[attempt.number] = Run.of(attempt, self._path / self._name, self._study)
            self._queue.put(lambda: self._begin(run))

    def epoch_ended(self, attempt: Attempt, row: dict[str, Any]) -> None:
        run, epoch = self._runs[attempt.number], int(row.get("epoch") or row["training_iteration"])
        self._queue.put(lambda: self._client.log(run, epoch, figures(row)))

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

    def _catch_up(self, over: frozenset[int]) -> None:
        self._past = past_epochs(self._path)
        runs = past_runs(self._path, self._path / self._name, self._study, over)
        for run in runs:
            run.epochs = self._past.get(run.number, {})
        self._client.catch_up(runs)

    def _begin(self, run: Run) -> None:
        run.epochs = self._past.get(run.number, {})
        self._client.begin(run)

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            try:
                call()
            except Exception as error:  # whatever a tracker raises, the search is not about it
                if not self._failed:
                    self._failed = True
                    text = " ".join(f"{type(error).__name__}: {error}".split())
                    self._warn(f"{self._name} failed, what it misses is in the study's own files: {text}")
