"""What a person sees while a search runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState
from ray.tune import Callback
from rich.console import Console
from rich.live import Live
from rich.table import Table

from sbp_tune.study.recorder import cause_of, number_in, reason
from sbp_tune.study.retries import is_death, lost_attempts
from sbp_tune.study.states import waits
from sbp_tune.study.storage import attempts, open_study, trial_of
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
    """Shows a search on the console. labels: by number of a trial, what is said of it beside its estimator.

    Of the trials that have ended only those are kept that a person sees, so that a result costs no more in a study
    of thousands.
    """

    def __init__(
        self, path: Path, total: int, labels: Sequence[str] | None = None, console: Console | None = None
    ) -> None:
        self._study, self._total, self._labels = open_study(path), total, labels
        self._console = console or Console()
        self._rows: dict[str, _Row] = {}  # by Ray's id of a trial, while it runs
        self._latest: deque[_Row] = deque(maxlen=_FINISHED_ROWS)
        self._on_front: dict[int, _Row] = {}  # of the trials of this start, those on the front, newest last
        self._ended: Counter[str] = Counter()  # state -> trials
        self._kwh_ended = 0.0
        self._waiting: dict[int, float] = {}  # trial -> its kWh, where it waits at a rung
        self._live: Live | None = None
        self._front: dict[int, list[float]] = {}  # trial -> its objectives, smaller is better
        self._started = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles callbacks when it starts; a terminal cannot travel."""
        return {}

    def setup(self, **info: Any) -> None:
        if self._console.is_terminal and self._console.width >= _TABLE_WIDTH:
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
                self._enter_front(trial)  # of earlier starts
            self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=2, transient=True)
            self._live.start()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._waiting.pop(number_in(trial), None)
        self._show(self._row(trial, "runs"), "goes on" if trial.config["lease"]["attempt"] else "started")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        row = self._row(trial, "runs")
        row.epoch, row.kwh = result.get("epoch", row.epoch), result.get("kwh") or row.kwh
        row.val_accuracy = result.get("val_accuracy")
        self._show(row)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if waits(trial_of(self._study, number_in(trial))):
            row = self._row(trial, "waits")
            del self._rows[trial.trial_id]  # as below
            self._waiting[row.number] = row.kwh
            self._show(row, row.state)
            return
        fully_trained = trial.last_result.get("fully_trained")
        self._end(trial, "complete" if fully_trained else "stopped")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        cause, state = cause_of(trial), trial_of(self._study, number_in(trial)).state
        if state == TrialState.COMPLETE:  # it died when it had been trained
            self._end(trial, "complete")
        elif not state.is_finished() and (why := self._lost(trial)):
            died = ", its worker died" if is_death(cause) else ""
            self._show(self._row(trial, "failed"), f"will go on{died}: {why}")
            del self._rows[trial.trial_id]  # the next attempt is a row of its own
        else:
            self._end(trial, "failed", reason(cause))

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self.close()

    def say(self, line: str) -> None:
        """Prints a line, above the live table where there is one."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Takes the live table off the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _lost(self, trial: Any) -> str | None:
        """Why the latest attempt of a trial ended before the trial; None where the trial does not go on."""
        record = trial_of(self._study, number_in(trial))
        return lost_attempts(record).get(attempts(record).index(trial.trial_id))

    def _row(self, trial: Any, state: str) -> _Row:
        if trial.trial_id not in self._rows:
            label = trial.config.get("sparsity", {}).get("estimator", "")
            if self._labels is not None:
                label = f"{label} {self._labels[number_in(trial)]}"
            self._rows[trial.trial_id] = _Row(number_in(trial), label, epochs=trial.config.get("epochs", 0))
        row = self._rows[trial.trial_id]
        row.state = state
        return row

    def _end(self, trial: Any, state: str, why: str = "") -> None:
        row = self._row(trial, state)
        del self._rows[trial.trial_id]
        self._ended[state] += 1
        self._kwh_ended += row.kwh
        if self._live is not None:
            if self._enter_front(trial_of(self._study, row.number)):
                self._on_front = {number: one for number, one in self._on_front.items() if number in self._front}
                self._on_front[row.number] = row
            else:
                self._latest.append(row)
        self._show(row, f"{row.state}: {why}" if why else row.state)

    def _enter_front(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Takes a trial onto the front if it belongs there, and off it what that dominates."""
        if trial.state != TrialState.COMPLETE or any(value > 0 for value in trial.constraints.values()):
            return False
        signs = [-1 if direction == StudyDirection.MAXIMIZE else 1 for direction in self._study.directions]
        costs = [sign * value for sign, value in zip(signs, trial.values, strict=True)]
        if any(_dominates(other, costs) for other in self._front.values()):
            return False
        self._front = {number: other for number, other in self._front.items() if not _dominates(costs, other)}
        self._front[trial.number] = costs
        return True

    def _show(self, row: _Row, event: str = "") -> None:
        if self._live is None and event:  # the live table looks for itself
            figures = "" if row.val_accuracy is None else f" epoch {row.epoch}/{row.epochs}, {_figures(row)}"
            line = f"[{self._ended.total()}/{self._total}] trial {row.number} {row.label} {event}{figures}"
            self.say(line)

    def _table(self) -> Table:
        running = list(self._rows.values())
        shown = [*self._latest, *self._on_front.values()][-_FINISHED_ROWS:]
        kwh = readable_energy(self._kwh_ended + sum(self._waiting.values()) + sum(row.kwh for row in running))
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        waiting = f", {len(self._waiting)} waiting" if self._waiting else ""
        counts = f"{self._ended.total()} of {self._total} trials ended, {len(running)} running{waiting}"
        caption = f"{counts}, {self._ended['failed']} failed; {kwh}; "
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


def _dominates(costs: list[float], other: list[float]) -> bool:
    return costs != other and all(one <= two for one, two in zip(costs, other, strict=True))
