"""What sparse training saves where it is as accurate as dense training, and gains where it costs as much."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.controls import dense_curve
from analysis.figures import style
from analysis.pareto import front_mask
from analysis.trials import estimator, is_compared, useful
from sbp_tune.study.results import StudyResults
from sbp_tune.units import axis_of, readable_energy, readable_metric

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class SavingInfo(NamedTuple):
    """Sparse against dense, by estimator, as functions of accuracy and of energy.

    saving: estimator, val_accuracy, trial (the cheapest of the estimator at least as accurate), kwh (its own),
    dense_kwh (of the dense-control curve at that accuracy), saving (1 - kwh / dense_kwh; below 0 where
    sparse costs more). gain: estimator, kwh, trial (the most accurate for at most that energy), val_accuracy,
    dense_accuracy, gain (val_accuracy - dense_accuracy, a fraction). Both end where the dense curve does:
    beyond, no dense run says what dense training would have done. problem: why both are empty, a sentence.
    """

    saving: pd.DataFrame
    gain: pd.DataFrame
    problem: str | None


def saving_info(study: StudyResults) -> SavingInfo:
    """The two functions, at evenly spaced places and at every step.

    Dense is the straight line between the controls, as in `compare_with_dense`; sparse is what a complete trial has
    reached, so it moves in steps. Trials without kwh or val_accuracy are left out.
    """
    trials = pd.DataFrame(
        {
            "trial": study.trials["trial"],
            "estimator": estimator(study),
            "kwh": useful(study, "kwh"),
            "val_accuracy": useful(study, "val_accuracy"),
        }
    )
    trials = trials[is_compared(study) & ~trials["estimator"].isin(["dense", "unknown"])].dropna()
    curve = dense_curve(study)
    rising = curve[~curve["val_accuracy"].duplicated()]  # the cheapest of the equally accurate
    savings, gains = [_EMPTY_SAVING], [_EMPTY_GAIN]
    for name in style.in_order(trials["estimator"]):
        rows = trials[trials["estimator"] == name]
        front = rows[front_mask(rows[["kwh", "val_accuracy"]], ["min", "max"])].drop_duplicates(["kwh", "val_accuracy"])
        front = front.sort_values("kwh").reset_index(drop=True)  # so by accuracy too
        savings.append(_saving(front, rising).assign(estimator=name))
        gains.append(_gain(front, curve).assign(estimator=name))
    saving = pd.concat([part for part in savings if len(part)] or [_EMPTY_SAVING], ignore_index=True)
    gain = pd.concat([part for part in gains if len(part)] or [_EMPTY_GAIN], ignore_index=True)
    return SavingInfo(saving[_EMPTY_SAVING.columns], gain[_EMPTY_GAIN.columns], _problem(trials, curve, saving, gain))


def plot_saving(study: StudyResults) -> Figure:
    """Energy saved at equal accuracy above, accuracy gained at equal energy below; 0 is dense training."""
    info = saving_info(study)
    x_axis = axis_of("kwh", info.gain["kwh"])
    accuracy = axis_of("val_accuracy", [])
    figure = style.new_panels(
        ["Energy saved (%)", "Accuracy gained (pp)"], [accuracy.title, x_axis.title], height=270
    )  # fmt: skip
    if info.problem:
        return style.say(figure, info.problem)
    for row, (table, x, y, axis) in enumerate(
        ((info.saving, "val_accuracy", "saving", accuracy), (info.gain, "kwh", "gain", x_axis)), start=1
    ):
        for name in style.in_order(table["estimator"]):
            rows, mark = table[table["estimator"] == name], style.mark_of(name)
            figure.add_scatter(
                x=style.drawn(rows[x], axis), y=style.drawn(rows[y], accuracy), mode="lines",
                name=style.label_of(name), legendgroup=style.label_of(name), legendrank=mark.rank,
                showlegend=row == 1 or name not in set(info.saving["estimator"]),
                line={"color": mark.color, "dash": mark.dash, "width": 2.5}, customdata=rows["trial"].tolist(),
                text=_hover(rows, x), hovertemplate="%{text}<extra></extra>", row=row, col=1,
            )  # fmt: skip
        if len(table):
            dense = {"color": style.VERMILLION, "dash": "dash", "width": 2}
            ends = style.drawn([table[x].min(), table[x].max()], axis)
            figure.add_scatter(
                x=ends, y=[0, 0], mode="lines", line=dense, name="dense control", legendgroup="dense control",
                legendrank=10, showlegend=row == 1 or info.saving.empty, hoverinfo="skip", row=row, col=1,
            )  # fmt: skip
    # what costs far more needs no resolution
    if len(info.saving):
        worst, best = info.saving["saving"].min(), info.saving["saving"].max()
        figure.update_yaxes(range=[100 * max(min(worst, 0) - 0.05, -1.05), 100 * max(best, 0) + 5], row=1, col=1)
    return figure


_EMPTY_SAVING = pd.DataFrame(columns=["estimator", "val_accuracy", "trial", "kwh", "dense_kwh", "saving"])
_EMPTY_GAIN = pd.DataFrame(columns=["estimator", "kwh", "trial", "val_accuracy", "dense_accuracy", "gain"])


def _saving(front: pd.DataFrame, curve: pd.DataFrame) -> pd.DataFrame:
    low = curve["val_accuracy"].min()
    high = min(curve["val_accuracy"].max(), front["val_accuracy"].max())
    at = _places(low, high, front["val_accuracy"])
    if not len(at):
        return pd.DataFrame()
    cheapest = np.searchsorted(front["val_accuracy"], at, side="left")  # the front is the cheapest for its accuracy
    chosen = front.iloc[cheapest]
    dense = np.interp(at, curve["val_accuracy"], curve["kwh"])
    kwh = chosen["kwh"].to_numpy()
    return pd.DataFrame(
        {"val_accuracy": at, "trial": chosen["trial"].array, "kwh": kwh, "dense_kwh": dense, "saving": 1 - kwh / dense}
    )


def _gain(front: pd.DataFrame, curve: pd.DataFrame) -> pd.DataFrame:
    low, high = max(curve["kwh"].min(), front["kwh"].min()), curve["kwh"].max()
    at = _places(low, high, front["kwh"])
    if not len(at):
        return pd.DataFrame()
    best = np.searchsorted(front["kwh"], at, side="right") - 1
    chosen = front.iloc[best]
    accuracy, dense = chosen["val_accuracy"].to_numpy(), np.interp(at, curve["kwh"], curve["val_accuracy"])
    return pd.DataFrame(
        {
            "kwh": at,
            "trial": chosen["trial"].array,
            "val_accuracy": accuracy,
            "dense_accuracy": dense,
            "gain": accuracy - dense,
        }
    )


def _places(low: float, high: float, steps: pd.Series) -> NDArray[np.float64]:
    """Where to look from `low` to `high`: evenly, and on both sides of each step."""
    if not low <= high:
        return np.empty(0)
    inside = steps[(steps >= low) & (steps <= high)].to_numpy(dtype=float)
    places = [np.linspace(low, high, 101), inside, np.nextafter(inside, np.inf), np.nextafter(inside, -np.inf)]
    return np.unique(np.concatenate(places).clip(low, high))


def _hover(rows: pd.DataFrame, x: str) -> list[str]:
    lines = []
    for trial, kwh, accuracy, at in zip(rows["trial"], rows["kwh"], rows["val_accuracy"], rows[x], strict=True):
        if x == "val_accuracy":
            difference = f"{readable_metric(x, at)} for {readable_energy(kwh)}"
        else:
            difference = f"{readable_metric('val_accuracy', accuracy)} for at most {readable_energy(at)}"
        lines.append(f"trial {trial}: {difference}")
    if x == "val_accuracy":
        dense = [readable_energy(value) for value in rows["dense_kwh"]]
        return [
            f"{line}<br>dense: {other}<br>saved: {100 * value:.1f} %"
            for line, other, value in zip(lines, dense, rows["saving"], strict=True)
        ]
    dense = [readable_metric("val_accuracy", value) for value in rows["dense_accuracy"]]
    return [
        f"{line}<br>dense: {other}<br>gained: {100 * value:+.2f} pp"
        for line, other, value in zip(lines, dense, rows["gain"], strict=True)
    ]


def _problem(trials: pd.DataFrame, curve: pd.DataFrame, saving: pd.DataFrame, gain: pd.DataFrame) -> str | None:
    if len(saving) or len(gain):
        return None
    if curve.empty:
        return "No dense control has finished, so there is nothing to compare sparse training with."
    if trials.empty:
        return "No sparse trial has finished with its accuracy and energy."
    return "No sparse trial is as accurate as a dense control, or costs as much."
