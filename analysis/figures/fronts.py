"""The fronts of several studies in one figure, each beside its own dense controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from analysis.figures import style
from analysis.figures.front import COSTS, pareto_front_info
from analysis.figures.hover import hover_lines
from analysis.trials import is_compared, useful
from sbp_tune.study.results import StudyResults
from sbp_tune.units import Axis, axis_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class FrontsInfo(NamedTuple):
    """Fronts of two metrics, in stored units.

    points: study (its place among those given), line ('front', of all complete trials, or 'controls', of the dense
    ones alone), trial, x, y; by study, line and x.
    """

    x: str
    y: str
    points: pd.DataFrame


def fronts_info(*studies: StudyResults, x: str = "kwh", y: str = "val_accuracy") -> FrontsInfo:
    """As `pareto_front_info` of each study. InputError for a metric that no study has."""
    rows = [pd.DataFrame(columns=["study", "line", "trial", "x", "y"])]
    for place, study in enumerate(studies):
        points = pareto_front_info(study, x, y).points
        for line, column in (("controls", "on_curve"), ("front", "on_front")):
            found = points[points[column]].sort_values("x", kind="stable")
            rows.append(found[["trial", "x", "y"]].assign(study=place, line=line))
    return FrontsInfo(x, y, pd.concat(rows[1:] or rows, ignore_index=True)[rows[0].columns])


def plot_fronts(*studies: StudyResults, x: str = "kwh", y: str = "val_accuracy") -> Figure:
    """A colour a study: its front as steps with points, its dense controls dashed with rings.

    Buttons put energy, CO₂, time or executed FLOPs on the x axis, those that were recorded, `x` first.
    """
    infos = [fronts_info(*studies, x=name, y=y) for name in _costs(studies, x)]
    y_axis = axis_of(y, infos[0].points["y"])
    axes = [axis_of(info.x, info.points["x"]) for info in infos]
    figure = style.new_figure(axes[0].title, y_axis.title)
    drawn = [(place, line) for place in range(len(studies)) for line in ("controls", "front")]
    hover = [_hover(studies[place], infos, place, y) for place in range(len(studies))]
    names = style.study_labels(studies)
    for place, line in drawn:
        look = style.line_of(place)
        is_front = line == "front"
        figure.add_scatter(
            **_data(infos[0], place, line, axes[0], y_axis, hover[place]),
            mode="lines+markers", name=names[place] if is_front else f"{names[place]}: dense controls",
            line={"color": look["color"], "width": 2.5, "shape": "hv"} if is_front
            else {"color": look["color"], "width": 1.5, "dash": "dash"},
            marker={"symbol": "circle" if is_front else "circle-open", "size": 8 if is_front else 9},
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    if infos[0].points.empty:
        return style.say(figure, "No trial has finished with both values.")
    if len(infos) > 1:
        choices = []
        for info, axis in zip(infos, axes, strict=True):
            data = [_data(info, place, line, axis, y_axis, hover[place]) for place, line in drawn]
            update = {key: [values[key] for values in data] for key in ("x", "y", "text", "customdata")}
            choices.append((COSTS.get(info.x, info.x), [update, {"xaxis.title.text": axis.title}]))
        figure.update_layout(updatemenus=[style.buttons(choices)])
    return figure


def _costs(studies: Sequence[StudyResults], x: str) -> list[str]:
    recorded = [name for name in COSTS if any(useful(one, name)[is_compared(one)].notna().any() for one in studies)]
    return [x, *(name for name in recorded if name != x and x in COSTS)]


def _hover(study: StudyResults, infos: Sequence[FrontsInfo], place: int, y: str) -> dict[int, str]:
    shown = {trial for info in infos for trial in info.points.loc[info.points["study"] == place, "trial"]}
    rows = study.trials.index[study.trials["trial"].isin(shown)]
    texts = hover_lines(study, [*COSTS, y], rows)
    return {
        int(trial): f"{style.escaped_lines(study.name)}<br>{style.escaped_lines(text)}"
        for trial, text in zip(study.trials.loc[rows, "trial"], texts, strict=True)
    }


def _data(info: FrontsInfo, place: int, line: str, x_axis: Axis, y_axis: Axis, hover: dict[int, str]) -> dict[str, Any]:
    rows = info.points[(info.points["study"] == place) & (info.points["line"] == line)]
    trials = [int(trial) for trial in rows["trial"]]
    return {
        "x": style.drawn(rows["x"].astype(float), x_axis),
        "y": style.drawn(rows["y"].astype(float), y_axis),
        "customdata": trials,
        "text": [hover[trial] for trial in trials],
    }
