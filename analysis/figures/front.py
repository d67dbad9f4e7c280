"""Accuracy against what it costs: the Pareto front, the dense controls, and what repeats have confirmed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from analysis.figures import style
from analysis.figures.confirmed import confirmed_rows
from analysis.figures.hover import hover_lines
from analysis.pareto import front_mask, knee
from analysis.text import one_line
from analysis.trials import estimator, is_compared, is_dense_control, is_shown, useful
from sbp_tune.errors import InputError
from sbp_tune.study.results import METRICS, StudyResults
from sbp_tune.units import Axis, axis_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COSTS = {"kwh": "energy", "co2_kg": "CO₂", "train_time_s": "time", "tflop": "FLOPs"}
"""What a click can put on the x axis, and the buttons' labels."""

# Objectives a study does not name: what is better follows from the metric.
_MAXIMISED = {"val_accuracy", "test_accuracy", "f1", "roc_auc", "precision", "recall", "gpu_util"}


class ParetoFrontInfo(NamedTuple):
    """Data of the Pareto figure, in stored units (kWh, fractions).

    points: one row per complete or stopped trial with both values: trial, x, y, estimator, role
    ('control', 'trial' or 'stopped'), on_front (of all complete trials), on_curve (of the dense
    controls alone). knee: trial number; ideal: the best x and the best y of the front, as one point; both
    None without a front. confirmed: as `confirmed_rows` gives it.
    """

    x: str
    y: str
    directions: tuple[str, str]
    points: pd.DataFrame
    knee: int | None
    ideal: tuple[float, float] | None
    confirmed: pd.DataFrame


def pareto_front_info(study: StudyResults, x: str = "kwh", y: str = "val_accuracy") -> ParetoFrontInfo:
    """Points, front, knee and ideal of two metrics of the trials, better as the study's objectives say.

    Trials with a NaN in either metric, failed or running trials, and those on another type of device than the one
    shown are left out; a stopped trial is shown but never on the front. InputError for a metric that no study has.
    """
    check_metrics(x, y)
    directions = (direction_of(study, x), direction_of(study, y))
    control = is_dense_control(study)
    points = pd.DataFrame(
        {
            "trial": study.trials["trial"],
            "x": useful(study, x),
            "y": useful(study, y),
            "estimator": estimator(study),
            "role": control.map({True: "control", False: "trial"}).where(is_compared(study), "stopped"),
        }
    )
    drawn = study.trials["state"].isin(["complete", "stopped"]) & is_shown(study)
    points = points[drawn].dropna(subset=["x", "y"])
    points = points.reset_index(drop=True)
    for column, role in {"on_front": ["control", "trial"], "on_curve": ["control"]}.items():
        values = points[["x", "y"]].where(points["role"].isin(role))
        points[column] = front_mask(values.to_numpy(dtype=float), directions)
    front = points[points["on_front"]]
    confirmed = confirmed_rows(study, x, y)
    if front.empty:
        return ParetoFrontInfo(x, y, directions, points, None, None, confirmed)
    # accuracy first: a tie for the knee goes to the more accurate trial
    place = knee(front[["y", "x"]].to_numpy(dtype=float), directions[::-1])
    ideal = tuple(float(front[name].agg(best)) for name, best in zip(("x", "y"), directions, strict=True))
    return ParetoFrontInfo(x, y, directions, points, int(front["trial"].iloc[place]), (ideal[0], ideal[1]), confirmed)


def plot_front(study: StudyResults, x: str = "kwh", y: str = "val_accuracy") -> Figure:
    """Trials by estimator, the front as steps, dense controls, knee, ideal, confirmed points, stopped trials faint.

    Buttons put energy, CO₂, time or executed FLOPs on the x axis, those that were recorded, `x` first. Axes are
    in readable units named in their titles. Points carry their trial's number. InputError as `pareto_front_info`.
    """
    infos = [pareto_front_info(study, name, y) for name in _costs(study, x)]
    y_axis = axis_of(y, pd.concat([infos[0].points["y"], infos[0].confirmed["y"]]))
    axes = [axis_of(info.x, pd.concat([info.points["x"], info.confirmed["x"]])) for info in infos]
    members = _members(infos)
    series = [_series(info, members) for info in infos]
    empty = [name for name in series[0] if all(one[name].empty for one in series)]
    series = [{name: rows for name, rows in one.items() if name not in empty} for one in series]
    figure = style.new_figure(axes[0].title, y_axis.title)
    hover = dict(zip(study.trials["trial"], hover_lines(study, [*COSTS, y, x]), strict=True))
    for name, rows in series[0].items():
        trace = style.scatter_of(len(rows)) if name in members else style.scatter_of(0)
        figure.add_trace(trace(**_data(rows, axes[0], y_axis), **_look(name, members, hover, infos[0])))
    if len(infos) > 1:
        choices = []
        for info, axis, one in zip(infos, axes, series, strict=True):
            data = [_data(rows, axis, y_axis) for rows in one.values()]
            update = {key: [values[key] for values in data] for key in ("x", "y")}
            update["error_x.array"] = [values.get("error_x", {}).get("array") for values in data]
            choices.append((COSTS.get(info.x, info.x), [update, {"xaxis.title.text": axis.title}]))
        figure.update_layout(updatemenus=[style.buttons(choices)])
    _frame(figure, infos[0], y_axis)
    if infos[0].points.empty and infos[0].confirmed.empty:
        style.say(figure, "No trial has finished with both values.")
    return figure


def _frame(figure: Figure, info: ParetoFrontInfo, y_axis: Axis) -> None:
    """Looks at the complete trials where stopped ones, or long error bars, would squeeze them.

    A double click shows all. Two seeds may have an interval far beyond what an accuracy can be.
    """
    repeats = info.confirmed[["y", "y_half"]].astype(float).fillna({"y_half": 0.0})
    ends = pd.concat([repeats["y"] - repeats["y_half"], repeats.sum(axis=1)])
    complete = pd.concat([info.points.loc[info.points["role"] != "stopped", "y"], repeats["y"]])
    low, high = complete.min(), complete.max()
    if len(ends):
        more = (high - low) / 4
        low, high = min(low, max(ends.min(), low - more)), max(high, min(ends.max(), high + more))
    every = pd.concat([info.points["y"], ends])
    if len(complete) and 0 < high - low < (every.max() - every.min()) * 0.6:
        margin = 0.08 * (high - low)
        figure.update_yaxes(range=[(low - margin) * y_axis.factor, (high + margin) * y_axis.factor])
        outside = info.points[~info.points["y"].between(low - margin, high + margin)]
        figure.update_traces(name=f"{_STOPPED} ({len(outside)} outside)", selector={"name": _STOPPED})


def check_metrics(*names: str) -> None:
    """InputError for a name that is no metric."""
    for name in names:
        if name not in METRICS:
            raise InputError(f"{one_line(name)}: not a metric; possible: {', '.join(METRICS)}")


def direction_of(study: StudyResults, name: str) -> str:
    """'max' or 'min': as the study's objectives say, else as the metric does."""
    return study.objectives.get(name, "max" if name in _MAXIMISED else "min")


_STOPPED, _FRONT, _CURVE, _KNEE, _IDEAL = "stopped early", "Pareto front", "dense control curve", "knee", "ideal"
# of confirmed points, by role
_CONFIRMED = {"control": "dense control, confirmed (95 %)", "point": "sparse, confirmed (95 %)"}


def _costs(study: StudyResults, x: str) -> list[str]:
    check_metrics(x)
    finished = study.trials["state"].isin(["complete", "stopped"])
    return [x, *(name for name in COSTS if name != x and x in COSTS and useful(study, name)[finished].notna().any())]


def _members(infos: list[ParetoFrontInfo]) -> dict[str, list[int]]:
    """Trials that one trace marks, the same whatever is on the x axis: by estimator, and the stopped ones."""
    points = pd.concat([info.points for info in infos]).drop_duplicates("trial").sort_values("trial")
    stopped = points[points["role"] == "stopped"]
    complete = points[points["role"] != "stopped"]
    of = {str(name): rows["trial"].tolist() for name, rows in complete.groupby("estimator")}
    members = {_STOPPED: stopped["trial"].tolist()} if len(stopped) else {}
    return members | {name: of[name] for name in style.in_order(of)}


def _series(info: ParetoFrontInfo, members: dict[str, list[int]]) -> dict[str, pd.DataFrame]:
    """Rows x and y of each trace, by name, the lines under the points; the same names for every x."""
    points, confirmed = info.points.set_index("trial"), info.confirmed
    ordered = points.sort_values("x", kind="stable")
    ideal = pd.DataFrame([info.ideal] if info.ideal else [], columns=["x", "y"])
    series = {name: points.reindex(trials) for name, trials in members.items() if name == _STOPPED}
    series |= {_FRONT: ordered[ordered["on_front"]], _CURVE: ordered[ordered["on_curve"]]}
    series |= {name: points.reindex(trials) for name, trials in members.items() if name != _STOPPED}
    series |= {_KNEE: points[points.index == info.knee], _IDEAL: ideal}
    return series | {name: confirmed[confirmed["role"] == role] for role, name in _CONFIRMED.items()}


def _data(rows: pd.DataFrame, x_axis: Axis, y_axis: Axis) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name, axis in (("x", x_axis), ("y", y_axis)):
        data[name] = style.drawn(rows[name], axis)
        if f"{name}_half" in rows:
            data[f"error_{name}"] = {"array": style.drawn(rows[f"{name}_half"], axis)}
    return data


def _look(name: str, members: dict[str, list[int]], hover: dict[int, str], info: ParetoFrontInfo) -> dict[str, Any]:
    if name in members:
        trials = members[name]
        text = [style.escaped_lines(hover[trial]) for trial in trials]
        point = {"mode": "markers", "customdata": trials, "text": text, "hovertemplate": "%{text}<extra></extra>"}
        if name == _STOPPED:
            faint = {"symbol": "circle", "size": 7, "color": style.GREY, "opacity": 0.3}
            return {**point, "name": name, "marker": faint, "legendrank": 130}
        return {
            **point, "name": style.label_of(name), "marker": style.marker(name), "legendgroup": style.label_of(name),
            "legendrank": style.mark_of(name).rank,
        }  # fmt: skip
    if name == _FRONT:
        # a point of the front holds until a better one costs more (or, if x is maximised, until a worse one)
        steps = {"color": style.GREY, "width": 2, "shape": "hv" if info.directions[0] == "min" else "vh"}
        return {"mode": "lines", "line": steps, "name": name, "legendrank": 100, "hoverinfo": "skip"}
    if name == _CURVE:
        dashes = {"color": style.VERMILLION, "width": 2, "dash": "dash"}
        return {"mode": "lines", "line": dashes, "name": name, "legendgroup": "dense control", "showlegend": False,
                "hoverinfo": "skip"}  # fmt: skip
    if name == _KNEE:
        ring = {"symbol": "circle-open", "size": 20, "color": style.GREY, "line": {"width": 2}}
        return {"mode": "markers", "marker": ring, "name": name, "legendrank": 110, "hoverinfo": "skip"}
    if name == _IDEAL:
        asterisk = {"symbol": "asterisk-open", "size": 12, "color": style.GREY, "line": {"width": 2}}
        said = "ideal: the best of both,<br>a point that no trial need reach<extra></extra>"
        return {"mode": "markers", "marker": asterisk, "name": name, "legendrank": 120, "hovertemplate": said}
    role = next(role for role, title in _CONFIRMED.items() if title == name)
    rows = info.confirmed[info.confirmed["role"] == role]
    color = style.VERMILLION if role == "control" else style.TEXT
    return {
        "mode": "markers", "name": name, "legendrank": 105, "customdata": rows["trial"].tolist(),
        "marker": {"symbol": "cross-thin", "size": 8, "line": {"width": 2, "color": color}},
        "error_x_color": color, "error_x_thickness": 1.5, "error_x_width": 4,
        "error_y_color": color, "error_y_thickness": 1.5, "error_y_width": 4,
        "text": [style.escaped_lines(text) for text in rows["hover"]], "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip
