"""Accuracy against cost, a panel for each regime and axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from benchmarks.frontier.table import is_above, sparse_arms

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_AXES = {"tflop_ratio": "executed FLOPs", "seconds_ratio": "training time"}
_VERMILLION, _BLUE, _GREEN, _GREY = "#D55E00", "#0072B2", "#009E73", "#7F7F7F"


def draw(found: pd.DataFrame) -> Figure:
    """Dense controls as a curve, arms as points with their intervals; costs relative to dense at all epochs."""
    from plotly.subplots import make_subplots

    regimes = list(found["regime"].unique())
    titles = [f"{regime.replace('_', '-')}" for regime in regimes for _ in _AXES]
    figure = make_subplots(
        len(regimes), len(_AXES), subplot_titles=titles, horizontal_spacing=0.08, vertical_spacing=0.09
    )
    named: set[str] = set()
    for at, regime in enumerate(regimes, 1):
        rows = found[found["regime"] == regime]
        dense = rows[rows["arm"].str.startswith("dense")]
        arms = sparse_arms(rows)
        above = is_above(arms)
        for column, (axis, title) in enumerate(_AXES.items(), 1):
            for part, colour, name, mode in (
                (dense, _VERMILLION, "dense control, 25 to 100 % of the epochs", "lines+markers"),
                (arms[~above], _BLUE, "sparse", "markers+text"),
                (arms[above], _GREEN, "sparse, above dense of its FLOPs beyond its interval", "markers+text"),
            ):
                if part.empty:
                    continue
                figure.add_scatter(
                    x=part[axis],
                    y=part["accuracy"],
                    error_y={"array": part["accuracy_high"] - part["accuracy"], "width": 2, "thickness": 1},
                    mode=mode,
                    name=name,
                    legendgroup=name,
                    showlegend=name not in named,
                    marker={"color": colour, "size": 8},
                    text=part["arm"] if "text" in mode else None,
                    textposition=_sides(part[axis]),
                    textfont={"size": 9, "color": _GREY},
                    cliponaxis=False,  # names at the edge
                    row=at,
                    col=column,
                )
                named.add(name)
            reach = [0.2, 0.1 + max(1.05, float(rows[axis].max()))]  # room for the names
            figure.update_xaxes(title=f"{title}, dense at all epochs = 1", range=reach, row=at, col=column)
        figure.update_yaxes(title="test accuracy, %", row=at, col=1)
    figure.update_layout(
        template="plotly_white",
        width=1280,
        height=430 * len(regimes) + 60,
        legend={"orientation": "h", "yref": "container", "y": 0.99, "yanchor": "top"},
        margin={"t": 90, "r": 30},
    )
    return figure


def _sides(costs: pd.Series) -> list[str]:
    """Names of points beside each other stand on different sides of them."""
    places = ["middle right", "middle left", "top center", "bottom center"]
    return [places[int(rank) % len(places)] for rank in costs.rank(method="first") - 1]
