"""Trials of a study as tables of text."""

from __future__ import annotations

import pandas as pd

from analysis.confirmed import read_confirmed
from analysis.confirmed_table import confirmed_table, note
from analysis.controls import dense_curve
from analysis.page import paragraph, table
from analysis.pareto import trial_front
from analysis.trials import estimator, is_dense_control, metric, searched_config
from sbp_tune.study.results import StudyResults
from sbp_tune.units import readable_metric

MOST_ROWS = 100
"""A longer table would be read by nobody; the study's trials.csv has all."""

_METRIC_HEADERS = {
    "val_accuracy": "val. accuracy",
    "kwh": "energy",
    "kwh_measured_share": "measured",
    "co2_kg": "CO₂eq",
    "train_time_s": "time",
    "tflop": "TFLOP",
}


def front_table(study: StudyResults) -> list[str]:
    """The trials on the front, with what is confirmed of them."""
    names = " and ".join(f"{name} ({direction})" for name, direction in study.objectives.items())
    text = f"Trials that no other complete trial beats in {names}, dense controls included."
    rows = trial_front(study).index
    if not len(rows):
        return [paragraph(text, "note"), paragraph("No trial has finished.")]
    shown = trial_table(study, rows[:MOST_ROWS])
    confirmed = confirmed_table(read_confirmed(study)).set_index("trial")
    if len(confirmed):
        for place, name in enumerate(("test accuracy", "lead", "verdict"), start=2):
            shown.insert(place, f"confirmed {name}", shown["trial"].map(confirmed[name]).fillna("–"))
    return [paragraph(text, "note"), table(shown, linked=True), *_cut(len(rows))]


def confirmed_section(study: StudyResults) -> list[str]:
    """The confirmed points; nothing without any."""
    points = read_confirmed(study)
    return [] if points.empty else [paragraph(note(points), "note"), table(confirmed_table(points), linked=True)]


def control_table(study: StudyResults) -> list[str]:
    """The dense controls by energy, those of the curve first where there are many."""
    rows = study.trials.index[is_dense_control(study)]
    if not len(rows):
        return [paragraph("No dense control has finished.")]
    text = "Dense training with fewer epochs or other settings of equal cost; a sparse method must beat their curve."
    kwh = metric(study, "kwh")[rows].sort_values()
    if len(kwh) > MOST_ROWS:
        on_curve = kwh[kwh.isin(dense_curve(study)["kwh"])]
        kwh = pd.concat([on_curve, kwh.drop(on_curve.index)])
    shown = trial_table(study, kwh.index[:MOST_ROWS])
    return [paragraph(text, "note"), table(shown, linked=True), *_cut(len(kwh))]


def failure_table(study: StudyResults) -> list[str]:
    """Failed trials and their errors, attempts that were lost, and machines that could not be used; nothing without."""
    return [*_failed(study), *_lost(study), *(paragraph(line, "problem") for line in study.refused_nodes)]


def _failed(study: StudyResults) -> list[str]:
    failed = study.trials[study.trials["state"] == "failed"]
    if failed.empty:
        return []
    errors = failed["error"].fillna("no message") if "error" in failed else "no message"
    rows = pd.DataFrame({"trial": failed["trial"], "estimator": estimator(study)[failed.index], "error": errors})
    return [table(rows.head(MOST_ROWS), linked=True), *_cut(len(rows))]


def _lost(study: StudyResults) -> list[str]:
    if "lost_attempts" not in study.trials:
        return []
    lost = study.trials[study.trials["lost_attempts"].notna()]
    if lost.empty:
        return []
    text = (
        "Attempts that ended before their trial did: a worker died, an epoch hung, a machine could not be used. Their "
    )
    text += "trials went on from the last checkpoint, or were given up; their energy is in the bill."
    columns = {"trial": "trial", "state": "the trial", "attempts": "attempts", "lost_attempts": "lost"}
    rows = lost[list(columns)].rename(columns=columns)
    return [paragraph(text, "note"), table(rows.head(MOST_ROWS), linked=True), *_cut(len(rows))]


def trial_table(study: StudyResults, rows: pd.Index) -> pd.DataFrame:
    """Metrics and searched values of some trials, as text."""
    columns: dict[str, pd.Series] = {"trial": study.trials["trial"][rows], "estimator": estimator(study)[rows]}
    for name, header in _METRIC_HEADERS.items():
        columns[header] = metric(study, name)[rows].map(lambda value, name=name: readable_metric(name, value))
    config = searched_config(study).loc[rows]
    return pd.concat([pd.DataFrame(columns), config.dropna(axis=1, how="all")], axis=1)


def _cut(rows: int) -> list[str]:
    return [paragraph(f"The first {MOST_ROWS} of {rows}; trials.csv has all.", "note")] if rows > MOST_ROWS else []
