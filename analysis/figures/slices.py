"""One searched value after the other against what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from analysis.figures import style
from analysis.figures.front import check_metrics
from analysis.figures.searched import ESTIMATOR, Scale, categories, searched_info, short_names
from analysis.trials import estimator, useful
from sbp_tune.study.results import StudyResults
from sbp_tune.units import axis_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# What the schedules of sparse backpropagation are made of, first; others that were searched follow.
_FIRST = ("p0", "k", "schedule", "layers.profile", "layers.slope")


class SlicesInfo(NamedTuple):
    """points: trial, estimator, y (the metric), and a column for each key: complete trials with the metric.

    scales: 'linear', 'log' or 'category' by key, in the order of drawing.
    """

    y: str
    points: pd.DataFrame
    scales: dict[str, Scale]


def slices_info(study: StudyResults, y: str = "val_accuracy", keys: Sequence[str] | None = None) -> SlicesInfo:
    """The keys named, or the searched ones of `sparsity` (all searched ones where none of these was).

    A cell is None or NaN where the key means nothing to the trial. InputError for a key that no trial has, and for
    a metric that no study has.
    """
    check_metrics(y)
    info = searched_info(study, keys)
    if keys is None:
        searched = [key for key in info.scales if key != ESTIMATOR]
        of_sparsity = [key for key in searched if key.startswith("sparsity.")] or searched
        first = [f"sparsity.{key}" for key in _FIRST]
        keys = sorted(of_sparsity, key=lambda key: first.index(key) if key in first else len(first))
    heads = pd.DataFrame({"trial": study.trials["trial"], "estimator": estimator(study), "y": useful(study, y)})
    points = heads.loc[info.values.index].join(info.values[list(keys)]).dropna(subset="y")
    return SlicesInfo(y, points, {key: info.scales[key] for key in keys})


def plot_slices(study: StudyResults, y: str = "val_accuracy", keys: Sequence[str] | None = None) -> Figure:
    """A panel a key, below one another, trials by estimator."""
    info = slices_info(study, y, keys)
    axis = axis_of(y, info.points["y"])
    used = [key for key in info.scales if info.points[key].notna().any()]
    if not used:
        text = "No trial has finished." if info.points.empty else "No searched value differs between finished trials."
        return style.say(style.new_figure(), text)
    names = short_names(used)
    figure = style.new_panels(
        [axis.title.replace("Validation", "Val.")] * len(used), [names[key] for key in used], height=230
    )
    shown: set[str] = set()
    for row, key in enumerate(used, start=1):
        there = info.points[info.points[key].notna()]
        if info.scales[key] == "category":
            order = [style.escaped_lines(name) for name in categories(there[key])]
            figure.update_xaxes(type="category", categoryorder="array", categoryarray=order, row=row, col=1)
        elif info.scales[key] == "log":
            figure.update_xaxes(
                type="log", dtick=1 if there[key].max() > 20 * there[key].min() else "D2", row=row, col=1
            )
        for name in style.in_order(there["estimator"]):
            rows = there[there["estimator"] == name]
            category = info.scales[key] == "category"
            x = rows[key].map(style.escaped_lines) if category else rows[key].map(lambda value: float(f"{value:.6g}"))
            figure.add_trace(
                style.scatter_of(len(info.points))(
                    x=x.tolist(), y=style.drawn(rows["y"], axis), mode="markers", marker=style.marker(name, 8),
                    name=style.label_of(name), legendgroup=style.label_of(name), legendrank=style.mark_of(name).rank,
                    showlegend=name not in shown, customdata=rows["trial"].tolist(),
                    hovertemplate="trial %{customdata}: %{x}, %{y:.4~g}",
                ),
                row=row, col=1,
            )  # fmt: skip
            shown.add(name)
    return figure
