"""Which classes a trained network takes for which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.figures import style
from analysis.text import escaped
from sbp_tune.errors import InputError
from sbp_tune.units import Axis

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_PERCENT = Axis("", 100.0)
_NUMBERED = 20
_NAMED = 50


class ConfusionInfo(NamedTuple):
    """classes: names; counts: int64 [K, K], test images by true class (rows) and predicted class (columns);
    shares: of each true class's images, NaN for a class without any.
    """

    classes: list[str]
    counts: NDArray[np.int64]
    shares: NDArray[np.float64]


def confusion_info(run: Path | str) -> ConfusionInfo:
    """Of a run that `sbp-tune train -o` wrote: its folder or its result.json. InputError where there is none."""
    path = Path(run)
    file = path / "result.json" if path.is_dir() else path
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no JSON"
        raise InputError(f"{file}: no result of a finished training: {reason}") from error
    found = result if isinstance(result, dict) else {}
    classes = [str(name) for name in found.get("classes") or []]
    try:
        counts = np.asarray(found.get("confusion"), dtype=np.int64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{file}: confusion: needs rows of whole numbers") from error
    if not classes or counts.shape != (len(classes), len(classes)):
        raise InputError(f"{file}: confusion: found shape {counts.shape}; needs a row and a column for each of the "
                         f"{len(classes)} classes")  # fmt: skip
    images = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, images, out=np.full(counts.shape, np.nan), where=images > 0)
    return ConfusionInfo(classes, counts, shares)


def plot_confusion(run: Path | str) -> Figure:
    """Heat map of the shares, true classes from the top; with the counts while there are few classes."""
    info = confusion_info(run)
    names = [escaped(name) for name in info.classes]
    places = list(range(len(names)))
    figure = style.new_figure("Predicted class", "True class", height=460)
    figure.add_heatmap(
        z=[style.drawn(row, _PERCENT) for row in info.shares], x=places, y=places, zmin=0, zmax=100,
        colorscale=style.SCALE, xgap=1, ygap=1,
        colorbar={"title": {"text": "%"}, "thickness": 12},
        text=[[f"{names[true]} as {names[guess]}: {info.counts[true, guess]}" for guess in places] for true in places],
        hovertemplate="%{text}, %{z:.1f} %<extra></extra>",
    )  # fmt: skip
    if len(names) <= _NUMBERED:
        for true in places:
            for guess in places:
                light = info.shares[true, guess] > 0.5  # Cividis ends in yellow
                figure.add_annotation(
                    x=guess, y=true, text=str(info.counts[true, guess]), showarrow=False,
                    font={"size": 10, "color": "#1c1c1c" if light else "#ffffff"},
                )  # fmt: skip
    ticks = {"tickvals": places, "ticktext": names} if len(names) <= _NAMED else {"showticklabels": False}
    figure.update_xaxes(showgrid=False, **ticks)
    figure.update_yaxes(showgrid=False, autorange="reversed", **ticks)
    return figure
