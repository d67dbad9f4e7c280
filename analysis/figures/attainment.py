"""What repeated studies reach in one run, in half of the runs, and in all: attainment surfaces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import moocore
import numpy as np
import pandas as pd

from analysis.figures import style
from analysis.figures.front import check_metrics, direction_of
from analysis.trials import is_compared, useful
from sbp_tune.errors import InputError
from sbp_tune.study.results import StudyResults
from sbp_tune.units import axis_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class AttainmentInfo(NamedTuple):
    """Attainment surfaces of two metrics, in stored units.

    surfaces: level (so many studies have a complete trial at least as good as any point of the surface), x, y;
    corner points by level, then x. studies: those that have a complete trial.
    """

    x: str
    y: str
    directions: tuple[str, str]
    surfaces: pd.DataFrame
    studies: int


def attainment_info(
    studies: Sequence[StudyResults], x: str = "kwh", y: str = "val_accuracy", levels: Sequence[int] | None = None
) -> AttainmentInfo:
    """Surfaces that are attained by at least one, at least half, and all of the studies, or by so many of them.

    Source: Fonseca, Guerreiro, Lopez-Ibanez and Paquete 2011, doi:10.1007/978-3-642-19893-9_8 (moocore.eaf).
    A study without a complete trial attains nothing and is not counted. InputError for a metric that no study
    has, and for a level that cannot be.
    """
    check_metrics(x, y)
    directions = tuple(direction_of(studies[0], name) for name in (x, y)) if studies else ("min", "max")
    sets = []
    for study in studies:
        values = pd.DataFrame({"x": useful(study, x), "y": useful(study, y)})[is_compared(study, (x, y))].dropna()
        if len(values):
            sets.append(values.to_numpy(dtype=float))
    count = len(sets)
    levels = sorted({1, math.ceil(count / 2), count}) if levels is None and count else list(levels or [])
    if wrong := [level for level in levels if not 1 <= level <= count]:
        raise InputError(f"levels: found {wrong[0]}; allowed: 1 to {count}, the studies with a complete trial")
    surfaces = pd.DataFrame(columns=["level", "x", "y"], dtype=float)
    if count:
        sign = np.where([direction == "max" for direction in directions], -1.0, 1.0)
        number = np.repeat(np.arange(count), [len(points) for points in sets])
        percentiles = [100 * level / count for level in levels]
        found = moocore.eaf(np.concatenate(sets) * sign, number, percentiles=percentiles)
        surfaces = pd.DataFrame(found, columns=["x", "y", "level"])
        surfaces["level"] = (surfaces["level"] * count / 100).round().astype(int)
        surfaces[["x", "y"]] = surfaces[["x", "y"]] * sign
        surfaces = surfaces.sort_values(["level", "x", "y"], ignore_index=True)[["level", "x", "y"]]
    return AttainmentInfo(x, y, (directions[0], directions[1]), surfaces, count)


def plot_attainment(studies: Sequence[StudyResults], x: str = "kwh", y: str = "val_accuracy") -> Figure:
    """Surfaces as steps: the best run dotted, the median solid, what every run reached dashed."""
    info = attainment_info(studies, x, y)
    x_axis, y_axis = axis_of(x, info.surfaces["x"]), axis_of(y, info.surfaces["y"])
    figure = style.new_figure(x_axis.title, y_axis.title)
    dashes = {1: "dot", info.studies: "dash"} if info.studies > 1 else {}
    for level, rows in info.surfaces.groupby("level"):
        name = f"{level:.0f} of {info.studies}" + (" studies" if level == info.studies else "")
        line = {
            "shape": "hv" if info.directions[0] == "min" else "vh",
            "width": 3,
            "dash": dashes.get(int(str(level)), "solid"),
        }
        color = style.BLUE if level not in dashes else style.SKY
        figure.add_scatter(
            x=style.drawn(rows["x"], x_axis), y=style.drawn(rows["y"], y_axis), mode="lines", name=name,
            line={**line, "color": color},
            hovertemplate="%{y:.4~g} for %{x:.4~g}: reached by %{fullData.name}<extra></extra>",
        )  # fmt: skip
    if info.surfaces.empty:
        return style.say(figure, "No trial has finished with both values.")
    return style.caption(figure, "Reached by at least so many of the repeated studies.")
