"""How good the front was by the time that so much energy was spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.figures import style
from analysis.pareto import hypervolume
from analysis.trials import is_compared, metric, useful
from sbp_tune.errors import InputError
from sbp_tune.study.results import StudyResults
from sbp_tune.units import axis_of, readable_metric

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class HypervolumeInfo(NamedTuple):
    """The hypervolume of the complete trials after each trial that ended, of one study or several.

    reference: the fixed point from which volume counts, and ideal: the best of each objective, both of all studies
    together, in the objectives' units. history: study (its place among those given), trial, trials (ended so far),
    kwh (spent so far, by all trials, stopped and failed ones too), hypervolume (in the product of the units), share
    (of the box between reference and ideal); begins with a row of zeros. unrecorded: trials whose energy is
    not known and so not in kwh.
    """

    objectives: dict[str, str]
    reference: tuple[float, ...]
    ideal: tuple[float, ...]
    history: pd.DataFrame
    unrecorded: int


def hypervolume_info(*studies: StudyResults, reference: Sequence[float] | None = None) -> HypervolumeInfo:
    """Hypervolume over the trials of each study in the order in which they ended; unfinished ones come last.

    The default reference is the worst value of any complete trial plus a tenth of their range, in every objective;
    to compare figures, give the same one. InputError where studies differ in their objectives.
    """
    objectives = studies[0].objectives
    if any(study.objectives != objectives for study in studies):
        found = "; ".join(f"{study.name}: {', '.join(study.objectives)}" for study in studies)
        raise InputError(f"hypervolume: needs studies of the same objectives; found {found}")
    values = [_values(study) for study in studies]
    points = np.concatenate(values)
    points = points[~np.isnan(points).any(axis=1)]
    maximise = np.array([direction == "max" for direction in objectives.values()])
    corner, ideal = _box(points, maximise)
    if reference is not None:
        corner = np.asarray(reference, dtype=float)
    box = float(np.prod(np.abs(ideal - corner))) if len(points) else 0.0
    histories = [
        _history(place, study, points_of, objectives, corner, box)
        for place, (study, points_of) in enumerate(zip(studies, values, strict=True))
    ]
    unrecorded = sum(int(metric(study, "kwh").isna().sum()) for study in studies)
    history = pd.concat(histories, ignore_index=True)
    return HypervolumeInfo(dict(objectives), tuple(corner.tolist()), tuple(ideal.tolist()), history, unrecorded)


def plot_hypervolume(*studies: StudyResults, reference: Sequence[float] | None = None) -> Figure:
    """Steps of the hypervolume against the kWh spent, or by a button against the trials ended; a line a study."""
    info = hypervolume_info(*studies, reference=reference)
    axis = axis_of("kwh", info.history["kwh"])
    title = f"Energy spent ({axis.title.partition('(')[2]}"
    figure = style.new_figure(title, "Hypervolume (% of the box)")
    lines = [rows for _, rows in info.history.groupby("study")]
    names = style.study_labels(studies)
    for place, rows in enumerate(lines):
        figure.add_scatter(
            x=style.drawn(rows["kwh"], axis), y=style.drawn(rows["share"], _PERCENT), mode="lines",
            line={"shape": "hv", **style.line_of(place)}, name=names[place],
            customdata=rows["trial"].tolist(), showlegend=len(lines) > 1,
            hovertemplate="%{y:.1f} % after %{x:.4~g}<br>with trial %{customdata}<extra></extra>",
        )  # fmt: skip
    if info.history["share"].max() > 0:
        spent = {"x": [style.drawn(rows["kwh"], axis) for rows in lines]}
        count = {"x": [rows["trials"].tolist() for rows in lines]}
        choices = [("energy spent", [spent, {"xaxis.title.text": title}])]
        choices.append(("trials", [count, {"xaxis.title.text": "Trials ended"}]))
        figure.update_layout(updatemenus=[style.buttons(choices)])
        corner = (f"{name} {readable_metric(name, v)}" for name, v in zip(info.objectives, info.reference, strict=True))
        text = f"100 %: the box between the best of each objective and a fixed reference: {', '.join(corner)}."
        if info.unrecorded:
            text += f" Trials of unknown energy, counted as none: {info.unrecorded}."
        return style.caption(figure, text)
    return style.say(figure, "No trial has finished with a value for every objective.")


_PERCENT = axis_of("val_accuracy", [])


def _values(study: StudyResults) -> NDArray[np.float64]:
    """Objectives [n trials, m] of the complete trials; NaN for all others."""
    values = pd.concat([useful(study, name) for name in study.objectives], axis=1)
    return values.where(is_compared(study, study.objectives)).to_numpy(dtype=float)


def _box(points: NDArray[np.float64], maximise: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reference and ideal point [m] of points [n, m]; NaN without points."""
    if not len(points):
        nothing = np.full(len(maximise), np.nan)
        return nothing, nothing
    low, high = points.min(axis=0), points.max(axis=0)
    # of a single value there is no range: a tenth of itself, so that it has a volume
    margin = 0.1 * np.where(high > low, high - low, np.where(high == 0, 1.0, np.abs(high)))
    return np.where(maximise, low - margin, high + margin), np.where(maximise, high, low)


def _history(
    place: int,
    study: StudyResults,
    values: NDArray[np.float64],
    objectives: dict[str, str],
    reference: NDArray[np.float64],
    box: float,
) -> pd.DataFrame:
    order = _as_ended(study)
    spent = metric(study, "kwh").fillna(0.0).to_numpy()[order].cumsum()
    directions = list(objectives.values())
    gains = np.where([direction == "max" for direction in directions], values, -values)
    front = np.empty((0, len(directions)))
    volumes, volume = [], 0.0
    for row in order:
        new = gains[row]
        # only what no trial before it matches can add to the volume
        if not np.isnan(new).any() and not (front >= new).all(axis=1).any():
            front = np.vstack([front[~(new >= front).all(axis=1)], new])
            signed = np.where([direction == "max" for direction in directions], front, -front)
            volume = hypervolume(signed, directions, reference)
        volumes.append(volume)
    count = len(order)
    return pd.DataFrame(
        {
            "study": place,
            "trial": [None, *study.trials["trial"].to_numpy()[order]],
            "trials": range(count + 1),
            "kwh": [0.0, *spent],
            "hypervolume": [0.0, *volumes],
            "share": np.array([0.0, *volumes]) / box if box else 0.0,
        }
    )


def _as_ended(study: StudyResults) -> NDArray[np.intp]:
    """Places of the trials in the order in which they ended, unfinished ones last; by number without a time."""
    trials = study.trials.reset_index(drop=True)
    ended = trials["ended"] if "ended" in trials else pd.Series(pd.NaT, index=trials.index)
    keys = pd.DataFrame(
        {"open": trials["state"].isin(["running", "interrupted"]), "ended": ended, "trial": trials["trial"]}
    )
    return keys.sort_values(["open", "ended", "trial"], kind="stable").index.to_numpy()
