"""How trials learned: loss, accuracy, energy and power, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from analysis.figures import style
from analysis.figures.chosen import chosen_trials
from analysis.trials import estimator
from sbp_tune.study.results import StudyResults
from sbp_tune.units import axis_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_PANELS = {
    "loss": "Training loss",
    "val_accuracy": "Val. accuracy (%)",
    "kwh": "Energy",
    "power_w": "Mean power (W)",
}
_J_PER_KWH = 3.6e6


class TrainingCurvesInfo(NamedTuple):
    """Curves of some trials.

    curves: trial, epoch, loss (nats), val_accuracy (a fraction), kwh (so far), power_w (the mean of that
    epoch, NaN where it cannot be told), by trial and epoch. estimators: by trial, in the order of drawing: dense
    ones first.
    """

    curves: pd.DataFrame
    estimators: dict[int, str]


def training_curves_info(study: StudyResults, trials: Sequence[int] | None = None) -> TrainingCurvesInfo:
    """Epochs of the trials named, in any state; or of trials spread over the front and the best dense controls.

    Trials without an epoch are left out. InputError for a number that the study does not have.
    """
    rows = chosen_trials(study, trials, controls=3)
    kinds = dict(zip(rows["trial"], estimator(study)[rows.index], strict=True))
    epochs = study.epochs[study.epochs["trial"].isin(kinds)]
    columns = ["trial", "epoch", "loss", "val_accuracy", "kwh", "train_time_s"]
    curves = epochs[columns].astype({"trial": int} | dict.fromkeys(columns[1:], float))
    curves = curves.sort_values(["trial", "epoch"], ignore_index=True)
    by_trial = curves.groupby("trial")
    # both columns count from the trial's start; in the first epoch there is nothing to subtract
    kwh, seconds = (curves[name] - by_trial[name].shift(fill_value=0.0) for name in ("kwh", "train_time_s"))
    curves["power_w"] = (kwh * _J_PER_KWH / seconds).where((kwh >= 0) & (seconds > 0))
    order = sorted(set(curves["trial"]), key=lambda trial: (style.mark_of(kinds[trial]).rank, kinds[trial], trial))
    return TrainingCurvesInfo(curves.drop(columns="train_time_s"), {trial: kinds[trial] for trial in order})


def plot_training_curves(study: StudyResults, trials: Sequence[int] | None = None) -> Figure:
    """Four panels over the epochs, a line a trial; dense controls are dashed vermillion."""
    info = training_curves_info(study, trials)
    energy = axis_of("kwh", info.curves["kwh"])
    axes = {"kwh": energy, "val_accuracy": axis_of("val_accuracy", [])}
    titles = {**_PANELS, "kwh": energy.title}
    figure = style.new_panels(list(titles.values()), ["", "", "", "Epoch"], height=190)
    lines = style.trial_lines(info.estimators)
    for trial, kind in info.estimators.items():
        rows, mark = info.curves[info.curves["trial"] == trial], style.mark_of(kind)
        for row, (name, title) in enumerate(titles.items(), start=1):
            values = rows[name] if name not in axes else rows[name] * axes[name].factor
            figure.add_scatter(
                x=rows["epoch"].tolist(), y=[float(f"{v:.6g}") if v == v else None for v in values],
                mode="lines" if len(rows) > 1 else "markers",
                line=lines[trial], marker={"color": mark.color},
                name=f"{trial} {style.label_of(kind)}", legendgroup=str(trial), legendrank=mark.rank,
                showlegend=row == 1, customdata=[trial] * len(rows),
                hovertemplate=f"trial {trial}, epoch %{{x}}<br>{title}: %{{y:.4~g}}<extra></extra>", row=row, col=1,
            )  # fmt: skip
    return style.say(figure, "No trial to draw has finished an epoch.") if info.curves.empty else figure
