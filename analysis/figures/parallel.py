"""All searched values and objectives of each trial at once: parallel coordinates, their axes below one another.

Axes that lie, rather than stand, leave a narrow page its width for labels; and drawn as plain lines, trials are
pointed at and selected as in every other figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from analysis.figures import style
from analysis.figures.searched import Scale, categories, searched_info, short_names
from analysis.text import escaped, shown
from analysis.trials import useful
from sbp_tune.study.results import StudyResults
from sbp_tune.units import Axis, axis_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_SHADES = 8
_SHADED = (0.25, 0.95)
"""The part of the scale that can be seen on white and on black."""
_MISSING = -0.06
_UNIT = Axis("", 1.0)


class ParallelInfo(NamedTuple):
    """values: trial, then a column for each objective and searched key: complete trials with every objective.

    A cell is None or NaN where the key means nothing to the trial. scales: by key, without the objectives.
    """

    values: pd.DataFrame
    scales: dict[str, Scale]
    objectives: list[str]


class _Axis(NamedTuple):
    """places: of the trials, from 0 to 1, _MISSING where they have no value; ticks: place and label."""

    name: str
    places: pd.Series
    ticks: list[tuple[float, str]]


def parallel_info(study: StudyResults, keys: Sequence[str] | None = None) -> ParallelInfo:
    """The objectives, and the keys named or all that differ between trials. InputError for a key no trial has."""
    info = searched_info(study, keys)
    objectives = pd.DataFrame({name: useful(study, name) for name in study.objectives})
    values = study.trials[["trial"]].loc[info.values.index].join(objectives).join(info.values)
    values = values.dropna(subset=list(study.objectives))
    scales = {key: scale for key, scale in info.scales.items() if values[key].notna().any()}
    return ParallelInfo(values[["trial", *study.objectives, *scales]], scales, list(study.objectives))


def plot_parallel(study: StudyResults, keys: Sequence[str] | None = None) -> Figure:
    """A line a trial, down through its objectives and values, shaded by its rank in the first: the best is light.

    A value that means nothing to a trial is left of its axis, at the dash.
    """
    from plotly.colors import sample_colorscale

    info = parallel_info(study, keys)
    figure = style.new_figure()
    if info.values.empty:
        return style.say(figure, "No trial has finished with a value for every objective.")
    axes = [_objective(info.values[name], name) for name in info.objectives]
    names = short_names(list(info.scales))
    axes += [_axis(info.values[key], names[key], scale) for key, scale in info.scales.items()]
    goodness = axes[0].places if study.objectives[info.objectives[0]] == "max" else 1 - axes[0].places
    shade = (goodness.rank(pct=True) * (_SHADES - 1)).round().astype(int)
    colors = sample_colorscale(style.SCALE, np.linspace(*_SHADED, _SHADES).tolist())
    places = np.column_stack([axis.places for axis in axes])
    trace = style.scatter_of(places.size)
    for step in sorted(shade.unique()):  # the best on top
        rows = np.flatnonzero(shade == step)
        # one trace of many lines: a gap after each
        x = np.column_stack([places[rows], np.full(len(rows), np.nan)]).ravel()
        y = np.tile([*range(0, -len(axes), -1), np.nan], len(rows))
        figure.add_trace(
            trace(
                x=style.drawn(x, _UNIT),
                y=style.drawn(y, _UNIT),
                mode="lines+markers", showlegend=False, marker={"size": 5, "color": colors[step]},
                line={"color": colors[step], "width": 1.5}, opacity=max(0.2, min(0.7, 20 / len(places))),
                customdata=np.repeat(info.values["trial"].to_numpy()[rows], len(axes) + 1).tolist(),
                hovertemplate="trial %{customdata}<extra></extra>",
            )
        )  # fmt: skip
    for row, axis in enumerate(axes):
        _draw(figure, -row, axis)
    figure.update_xaxes(visible=False, range=[-0.16, 1.12])
    figure.update_yaxes(visible=False, range=[-len(axes) + 0.4, 0.5])
    return figure.update_layout(height=40 + 72 * len(axes))


def _draw(figure: Figure, y: int, axis: _Axis) -> None:
    figure.add_shape(type="line", x0=0, x1=1, y0=y, y1=y, line={"color": style.GREY, "width": 1}, layer="below")
    label = {"showarrow": False, "y": y, "bgcolor": "rgba(127,127,127,0.1)"}
    figure.add_annotation(text=f"<b>{axis.name}</b>", x=-0.14, xanchor="left", yshift=15, **label)
    crowded = len(axis.ticks) > 5
    for number, (place, text) in enumerate(axis.ticks):
        shift = {"xshift": -10} if place == _MISSING else {"yshift": -26 if crowded and number % 2 else -13}
        figure.add_annotation(text=text, x=place, y=y, font={"size": 11}, showarrow=False, **shift)


def _objective(values: pd.Series, name: str) -> _Axis:
    axis = axis_of(name, values)
    return _axis(values * axis.factor, axis.title, "linear")._replace(name=escaped(axis.title))


def _axis(values: pd.Series, name: str, scale: Scale) -> _Axis:
    if scale == "category":
        texts = categories(values)
        numbers = values.map({text: place for place, text in enumerate(texts)}).astype(float)
        marks = [(float(place), escaped(style.short(text, 13))) for place, text in enumerate(texts)]
    else:
        numbers = np.log10(values) if scale == "log" else values.astype(float)
        at = np.unique(np.linspace(numbers.min(), numbers.max(), 5))
        marks = [(float(one), shown(float(f"{10**one if scale == 'log' else one:.3g}"))) for one in at]
    low, high = marks[0][0], marks[-1][0]
    span = (high - low) or 1.0
    ticks = [((one - low) / span, text) for one, text in marks]
    if values.isna().any():
        ticks.append((_MISSING, "–"))
    return _Axis(escaped(name), ((numbers - low) / span).fillna(_MISSING), ticks)
