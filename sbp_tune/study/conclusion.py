"""What the terminal says when a search has ended: the front, the bill, and what to type next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from sbp_tune.study.device_types import mixed_devices
from sbp_tune.study.results import StudyResults, useful
from sbp_tune.study.working import shown
from sbp_tune.units import readable_energy, readable_metric

_HEADINGS = {
    "epoch": "epochs",
    "val_accuracy": "accuracy",
    "kwh": "energy",
    "train_time_s": "time",
    "tflop": "TFLOP",
}


def print_conclusion(
    results: StudyResults, front: pd.DataFrame, interrupted: bool, console: Console | None = None
) -> None:
    """Prints the front as a table, the energy of the study, the files, and the next commands."""
    console = console or Console()
    complete = (results.trials["state"] == "complete").any()
    nobody = "No trial meets all constraints." if complete else "No trial was trained to its end."
    console.print(_front_table(results, front) if len(front) else nobody)
    for text in (results.simulation, mixed_devices(results)):
        if text:
            _say(console, text)
    trials = results.trials
    counts = trials["state"].value_counts()
    order = ("complete", "stopped", "failed", "running", "interrupted")
    states = ", ".join(f"{counts[state]} {state}" for state in order if state in counts)
    kwh = trials["kwh"].sum(min_count=1)  # of nothing: not known, not 0
    measured = (trials["kwh"] * trials["kwh_measured_share"]).sum(min_count=1) / kwh
    share = "" if math.isnan(measured) else f", {100 * measured:.0f} % of it measured, the rest modelled"
    number = "1 trial" if len(trials) == 1 else f"{len(trials)} trials"
    _say(console, f"{number}: {states or 'none begun'}. Energy of all trials: {readable_energy(kwh)}{share}.")
    for trial, error in trials.loc[trials["state"] == "failed", ["trial", "error"]].itertuples(index=False):
        _say(console, f"trial {trial} failed: {error}")
    _say_what_was_lost(results, console)
    path = results.path
    _say(console, f"Report: {path / 'report.html'}   tables: {path / 'trials.csv'}, {path / 'front.csv'}")
    study = shlex.quote(shown(path))
    if study != shlex.quote(str(path)):
        _say(console, f"Study: {shown(path)}   on this machine: {path}")
    again = f"sbp-tune search {_word(path / 'study.yaml')} --name {results.name}-2"
    if interrupted:
        commands = [f"sbp-tune resume {study}", f"sbp-tune report {study}"]
    elif len(front):
        commands = [
            f"sbp-tune train {_word(path / 'best.yaml')}",
            f"sbp-tune export {study} --pick max-accuracy -o best.yaml",
            f"sbp-tune confirm {study} --points front --seeds 3",
            f"{again} --set search.seed=1",
        ]
    else:
        commands = [again]
    _say(console, "Interrupted; nothing that finished is lost. Next:" if interrupted else "Next:")
    for command in commands:
        _say(console, f"  {command}")


def _say_what_was_lost(results: StudyResults, console: Console) -> None:
    trials = results.trials
    if "lost_attempts" in trials and len(lost := trials.loc[trials["lost_attempts"].notna(), "trial"]):
        numbers = ", ".join(map(str, lost))
        _say(console, f"Attempts of trial {numbers} ended before the trial: trials.csv has why (lost_attempts).")
    for line in results.refused_nodes:
        _say(console, f"No trial ran on {line}")


def _front_table(results: StudyResults, front: pd.DataFrame) -> Table:
    mark = " (simulated)" if results.simulation else ""
    table = Table(title=f"Front of {results.name}{mark}: {' against '.join(results.objectives)}", title_justify="left")
    table.add_column("trial", justify="right")
    table.add_column("estimator", no_wrap=True)
    for heading in _HEADINGS.values():
        table.add_column(heading, justify="right")
    for row in front.assign(kwh=useful(front, "kwh")).to_dict("records"):
        table.add_row(str(row["trial"]), _estimator(row), *(_cell(name, row[name]) for name in _HEADINGS))
    return table


def _estimator(row: dict[Hashable, Any]) -> str:
    label = str(row.get("config.sparsity.estimator", ""))
    return f"{label} (control)" if label == "dense" else label


def _cell(name: str, value: float) -> str:
    return f"{value:.0f}" if name == "epoch" else readable_metric(name, value)


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _word(path: Path) -> str:
    """A path as one word of a shell."""
    return shlex.quote(str(path))
