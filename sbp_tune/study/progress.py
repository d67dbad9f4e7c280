"""What a person sees while a search runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from ray.tune import Callback
from rich.console import Console
from rich.live import Live
from rich.table import Table

from sbp_tune.study.recorder import cause_of, reason
from sbp_tune.study.storage import number_of, open_study
from sbp_tune.units import readable_energy

_TABLE_WIDTH = 70  # on a narrower terminal plain lines read better
_FINISHED_ROWS = 8  # rows for trials that have ended, beside all that run


@dataclass
class _Row:
    number: int
    label: str
    state: str = "starts"
    epoch: int = 0
    epochs: int = 0
    val_accuracy: float | None = None
    kwh: float = 0.0


class Progress(Callback):
    """Shows a search on the console. labels: by number of a trial, what is said of it beside its estimator."""

    def __init__(
        self, path: Path, total: int, labels: Sequence[str] | None = None, console: Console | None = None
    ) -> None:
        self._study, self._total, self._labels = open_study(path), total, labels
        self._console = console or Console()
        self._rows: dict[str, _Row] = {}
        self._live: Live | None = None
        self._front: set[int] = set()
        self._started = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles callbacks when it starts; a terminal cannot travel."""
        return {}

    def setup(self, **info: Any) -> None:
        if self._console.is_terminal and self._console.width >= _TABLE_WIDTH:
            self._live = Live(self._table(), console=self._console, refresh_per_second=2, transient=True)
            self._live.start()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._show(self._row(trial, "runs"), "started")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        row = self._row(trial, "runs")
        row.epoch, row.kwh = result.get("epoch", row.epoch), result.get("kwh") or row.kwh
        row.val_accuracy = result.get("val_accuracy")
        self._show(row)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        fully_trained = trial.last_result.get("fully_trained")
        self._ended(self._row(trial, "complete" if fully_trained else "stopped"))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        row = self._row(trial, "failed")
        self._ended(row, reason(cause_of(trial)))

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self.close()

    def close(self) -> None:
        """Takes the live table off the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _row(self, trial: Any, state: str) -> _Row:
        if trial.trial_id not in self._rows:
            number = number_of(self._study, trial.trial_id)
            label = trial.config.get("sparsity", {}).get("estimator", "")
            if number is not None and self._labels is not None:
                label = f"{label} {self._labels[number]}"
            self._rows[trial.trial_id] = _Row(
                -1 if number is None else number, label, epochs=trial.config.get("epochs", 0)
            )
        row = self._rows[trial.trial_id]
        row.state = state
        return row

    def _ended(self, row: _Row, why: str = "") -> None:
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        self._front = {trial.number for trial in self._study.best_trials} if complete else set()
        self._show(row, f"{row.state}: {why}" if why else row.state)

    def _show(self, row: _Row, event: str = "") -> None:
        if self._live is not None:
            self._live.update(self._table())
        elif event:
            figures = "" if row.val_accuracy is None else f" epoch {row.epoch}/{row.epochs}, {_figures(row)}"
            line = f"[{self._ended_count()}/{self._total}] trial {row.number} {row.label} {event}{figures}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _ended_count(self) -> int:
        return sum(row.state in ("complete", "stopped", "failed") for row in self._rows.values())

    def _table(self) -> Table:
        rows = list(self._rows.values())
        running = [row for row in rows if row.state in ("starts", "runs")]
        ended = [row for row in rows if row not in running]
        shown = sorted(ended, key=lambda row: (row.number not in self._front, -row.number))[:_FINISHED_ROWS]
        kwh = readable_energy(sum(row.kwh for row in rows))
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        failed = sum(row.state == "failed" for row in ended)
        caption = f"{len(ended)} of {self._total} trials ended, {len(running)} running, {failed} failed; {kwh}; "
        table = Table(caption=f"{caption}front: {len(self._front)}; {minutes}:{seconds:02d}", caption_justify="left")
        for name in ("trial", "estimator", "state", "epoch", "val_accuracy", "energy", "front"):
            table.add_column(name, justify="left" if name in ("estimator", "state") else "right")
        for row in [*running, *sorted(shown, key=lambda row: row.number)]:
            accuracy = "" if row.val_accuracy is None else f"{100 * row.val_accuracy:.2f} %"
            on_front = "front" if row.number in self._front else ""
            energy = readable_energy(row.kwh) if row.kwh else ""
            table.add_row(
                str(row.number), row.label, row.state, f"{row.epoch}/{row.epochs}", accuracy, energy, on_front
            )
        return table


def _figures(row: _Row) -> str:
    return f"val_accuracy {100 * (row.val_accuracy or 0):.2f} %, {readable_energy(row.kwh)}"
