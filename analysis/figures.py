"""The figures. Each is an `_info` function (pure data, no Plotly) and a `plot_` function that draws it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from analysis.confirmed import MEASURED, read_confirmed
from analysis.confirmed_table import confirmed_table
from analysis.energy_bill import COMPONENTS, EnergyBillInfo, energy_bill_info
from analysis.pareto import front_mask, knee
from analysis.text import escaped, one_line, shown
from analysis.trials import estimator, is_complete, is_dense_control, records, useful, varying_config
from sbp_tune.errors import InputError
from sbp_tune.study.results import METRICS, StudyResults
from sbp_tune.units import axis_of, readable_energy, readable_metric

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["EnergyBillInfo", "energy_bill_info", "pareto_front_info", "plot_energy_bill", "plot_front"]

# Okabe and Ito's palette, told apart with every kind of colour vision (jfly.uni-koeln.de/color). The
# controls have vermillion to themselves; grey stands for black, which a dark page would swallow.
_VERMILLION, _GREY, _BLUE = "#D55E00", "#7F7F7F", "#0072B2"
_ESTIMATOR_COLORS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")
_ESTIMATOR_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "pentagon", "x", "hexagon")
_COMPONENT_COLORS = {"gpu": "#009E73", "cpu": "#0072B2", "ram": "#E69F00", "rest": _GREY}

_ROLES = {"control": "dense control", "point": "sparse"}  # of confirmed points

_PARTS = ("kwh_gpu", "kwh_cpu", "kwh_ram")

# Objectives a study does not name: what is better follows from the metric.
_MAXIMISED = {"val_accuracy", "test_accuracy", "f1", "roc_auc", "precision", "recall", "gpu_util"}


class ParetoFrontInfo(NamedTuple):
    """Data of the Pareto figure, in stored units (kWh, fractions).

    points: one row per complete or stopped trial with both values: trial, x, y, estimator, role
    ('control', 'trial' or 'stopped'), on_front (of all complete trials), on_curve (of the dense
    controls alone), hover (plain text lines). knee: trial number, None without a front. confirmed: one row
    per confirmed point: trial, role ('control' or 'point'), x, x_half, y, y_half (half of the 95 % interval, NaN
    with one seed), hover; empty where nothing, or neither metric, was confirmed.
    """

    x: str
    y: str
    directions: tuple[str, str]
    points: pd.DataFrame
    knee: int | None
    confirmed: pd.DataFrame


def pareto_front_info(study: StudyResults, x: str = "kwh", y: str = "val_accuracy") -> ParetoFrontInfo:
    """Points, front and knee of two metrics of the trials, better as the study's objectives say.

    Trials with a NaN in either metric, and failed or running trials, are left out; a stopped trial is
    shown but never on the front. InputError for a metric that no study has.
    """
    _check_metrics(x, y)
    directions = (_direction(study, x), _direction(study, y))
    control = is_dense_control(study)
    points = pd.DataFrame(
        {
            "trial": study.trials["trial"],
            "x": useful(study, x),
            "y": useful(study, y),
            "estimator": estimator(study),
            "role": control.map({True: "control", False: "trial"}).where(is_complete(study), "stopped"),
            "hover": _hover(study, y, x),
        }
    )
    points = points[study.trials["state"].isin(["complete", "stopped"])].dropna(subset=["x", "y"])
    points = points.reset_index(drop=True)
    for column, role in {"on_front": ["control", "trial"], "on_curve": ["control"]}.items():
        values = points[["x", "y"]].where(points["role"].isin(role))
        points[column] = front_mask(values.to_numpy(dtype=float), directions)
    front = points[points["on_front"]]
    # accuracy first: a tie for the knee goes to the more accurate trial
    place = knee(front[["y", "x"]].to_numpy(dtype=float), directions[::-1]) if len(front) else None
    knee_trial = None if place is None else int(front["trial"].iloc[place])
    return ParetoFrontInfo(x, y, directions, points, knee_trial, _confirmed(study, x, y))


def plot_front(study: StudyResults, x: str = "kwh", y: str = "val_accuracy") -> Figure:
    """Pareto figure: trials by estimator, the front as steps, dense controls, the knee, stopped trials faint.

    Axes are in readable units named in their titles. InputError as `pareto_front_info`.
    """
    import plotly.graph_objects as go

    info = pareto_front_info(study, x, y)
    points, confirmed = info.points.sort_values("x"), info.confirmed
    x_axis, y_axis = (axis_of(name, pd.concat([points[k], confirmed[k]])) for name, k in ((x, "x"), (y, "y")))
    figure = go.Figure(layout=_layout(x_axis.title, y_axis.title))

    def add(rows: pd.DataFrame, name: str, **style: object) -> None:
        if len(rows):
            hover = [escaped_lines(text) for text in rows["hover"]]
            figure.add_scatter(
                x=rows["x"] * x_axis.factor, y=rows["y"] * y_axis.factor, name=escaped(name), text=hover,
                hovertemplate="%{text}<extra></extra>", **style,
            )  # fmt: skip

    stopped = {"symbol": "circle", "size": 7, "color": _GREY, "opacity": 0.3}
    add(points[points["role"] == "stopped"], "stopped early", mode="markers", marker=stopped)
    # a point of the front holds until a better one costs more (or, if x is maximised, until a worse one)
    steps = {"color": _GREY, "width": 2, "shape": "hv" if info.directions[0] == "min" else "vh"}
    add(points[points["on_front"]], "Pareto front", mode="lines", line=steps, hoverinfo="skip")
    dashes = {"color": _VERMILLION, "width": 2, "dash": "dash"}
    curve = {"legendgroup": "control", "showlegend": False, "hoverinfo": "skip"}
    add(points[points["on_curve"]], "dense control curve", mode="lines", line=dashes, **curve)
    hollow = {"symbol": "circle-open", "size": 11, "color": _VERMILLION, "line": {"width": 3}}
    controls = points[points["role"] == "control"]
    add(controls, "dense control", mode="markers", marker=hollow, legendgroup="control")

    trials = points[points["role"] == "trial"]
    for number, name in enumerate(sorted(trials["estimator"].unique())):
        marker = {
            "color": _ESTIMATOR_COLORS[number % len(_ESTIMATOR_COLORS)],
            "symbol": _ESTIMATOR_SYMBOLS[number % len(_ESTIMATOR_SYMBOLS)],
            "size": 10,
            "line": {"width": 1, "color": _GREY},
        }
        add(trials[trials["estimator"] == name], name, mode="markers", marker=marker)
    ring = {"symbol": "circle-open", "size": 20, "color": _GREY, "line": {"width": 2}}
    add(points[points["trial"] == info.knee], "knee", mode="markers", marker=ring)
    for role, color in {"control": _VERMILLION, "point": _BLUE}.items():
        rows = confirmed[confirmed["role"] == role]
        bars = {
            f"error_{axis}": {
                "array": rows[f"{axis}_half"] * scale.factor,
                "color": color,
                "thickness": 1.5,
                "width": 4,
            }
            for axis, scale in (("x", x_axis), ("y", y_axis))
        }
        cross = {"symbol": "cross-thin", "size": 8, "line": {"width": 2, "color": color}}
        add(rows, f"{_ROLES[role]}, confirmed (95 %)", mode="markers", marker=cross, **bars)
    if points.empty and confirmed.empty:
        figure.add_annotation(text="No trial has finished with both values.", showarrow=False)
    return figure


def plot_energy_bill(study: StudyResults) -> Figure:
    """Energy of each group of trials as stacked horizontal bars by component, in a readable unit."""
    import plotly.graph_objects as go

    info = energy_bill_info(study)
    axis = axis_of("kwh", info.groups["kwh"])
    labels = [f"{name} ({row['trials']:.0f})" for name, row in info.groups.iterrows()]
    figure = go.Figure(layout=_layout(axis.title, "", barmode="stack"))
    for component, row in info.components.iterrows():
        values = info.groups[component]
        name = f"{COMPONENTS[str(component)]}, {row['source']}"
        figure.add_bar(
            x=values * axis.factor, y=labels, orientation="h", name=name,
            marker_color=_COMPONENT_COLORS[str(component)],
            text=[readable_energy(value) for value in values], textposition="none",
            hovertemplate="%{y}<br>%{fullData.name}: %{text}<extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed")  # groups from the top, in the order of the table
    if info.components.empty:
        figure.add_annotation(text="No energy was recorded.", showarrow=False)
    return figure


def _confirmed(study: StudyResults, x: str, y: str) -> pd.DataFrame:
    points = read_confirmed(study)
    if points.empty or x not in MEASURED or y not in MEASURED:
        return pd.DataFrame(columns=["trial", "role", "x", "x_half", "y", "y_half", "hover"])
    columns: dict[str, Any] = {"trial": points["trial"], "role": points["role"]}
    for axis, name in (("x", x), ("y", y)):
        columns |= {axis: points[f"{name}_mean"], f"{axis}_half": points[f"{name}_high"] - points[f"{name}_mean"]}
    texts = [
        "\n".join([f"trial {row.pop('trial')}, confirmed", *(f"{name}: {value}" for name, value in row.items())])
        for row in records(confirmed_table(points))
    ]
    return pd.DataFrame({**columns, "hover": texts}).dropna(subset=["x", "y"]).reset_index(drop=True)


def escaped_lines(text: str) -> str:
    """Plain lines as Plotly text: markup stays text, lines stay lines."""
    return "<br>".join(escaped(line) for line in text.split("\n"))


def _hover(study: StudyResults, *shown_metrics: str) -> list[str]:
    """What a point says of itself, one fact a line: its estimator, the config values that vary, its energy."""
    config = varying_config(study)
    names = dict.fromkeys([*shown_metrics, "val_accuracy", "kwh", *_PARTS, "kwh_measured_share"])
    numbers = pd.DataFrame({name: useful(study, name) for name in names})
    heads = study.trials[["trial", "state"]].assign(estimator=estimator(study))
    texts = []
    for head, values, metrics in zip(records(heads), records(config), records(numbers), strict=True):
        lines = [f"trial {head['trial']}, {head['state']}", f"estimator: {one_line(head['estimator'])}"]
        lines += [f"{key}: {shown(value)}" for key, value in values.items() if value is not None]
        lines += [f"{key}: {readable_metric(key, value)}" for key, value in metrics.items() if value == value]
        texts.append("\n".join(lines))
    return texts


def _check_metrics(*names: str) -> None:
    for name in names:
        if name not in METRICS:
            raise InputError(f"{one_line(name)}: not a metric; possible: {', '.join(METRICS)}")


def _direction(study: StudyResults, name: str) -> str:
    return study.objectives.get(name, "max" if name in _MAXIMISED else "min")


def _layout(x_title: str, y_title: str, **more: object) -> dict[str, object]:
    # a transparent ground and mid greys read on white paper, in a notebook and on a dark page
    axis = {"gridcolor": "rgba(127,127,127,0.25)", "zeroline": False, "automargin": True, "tickformat": "~g"}
    return {
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#6b6b6b"},
        "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "font": {"color": "#1c1c1c"}},
        "xaxis": {**axis, "title": {"text": x_title}},
        "yaxis": {**axis, "title": {"text": y_title}},
        **more,
    }
