"""How every figure looks: palette, marks, legend order, layout, notes. No figure chooses these for itself.

Colours are Okabe and Ito's, told apart with every kind of colour vision (jfly.uni-koeln.de/color), and an
estimator differs from every other by its symbol too, so nothing hangs on colour alone. The ground is transparent
and the text a mid grey, which reads on white paper, in a notebook and on a dark page.
"""

from __future__ import annotations

import html
import math
import textwrap
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from analysis.text import escaped
from sbp_tune.units import Axis

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sbp_tune.study.results import StudyResults

VERMILLION, BLUE, GREEN, PINK, SKY, ORANGE = "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
GREY, FAINT, TEXT = "#7F7F7F", "rgba(127,127,127,0.25)", "#777777"
SCALE = "Cividis"
"""For numbers as colours: even steps of lightness, also to the colour-blind."""

COMPONENT_COLORS = {"gpu": GREEN, "cpu": BLUE, "ram": ORANGE, "rest": GREY}
SOURCE_COLORS = {"measured": BLUE, "modelled": SKY, "unknown": GREY}

# Vermillion belongs to the dense controls, which every figure compares with.
_COLORS = (BLUE, GREEN, PINK, ORANGE, SKY)
_SYMBOLS = (
    *("circle", "square", "diamond", "triangle-up", "cross", "star", "pentagon", "x"),
    *("hexagon", "triangle-down", "bowtie", "hourglass", "star-square", "triangle-left", "hexagram"),
)
_DASHES = ("solid", "dot", "dashdot")
_TRIAL_DASHES = ("solid", "dot", "dashdot", "8px,2px", "2px,6px", "12px,3px,2px,3px")
_DENSE_DASHES = ("dash", "longdash", "longdashdot")
_ESTIMATORS = (
    *("mask", "batch_slice", "grid", "layer", "channel_block", "channel_topk", "branch_drop", "prefix"),
    *("sample", "variance", "budget"),
)

MAX_LINES = 8
"""Trials that a figure of curves draws unless told which."""
GPU_DRAWN = 2000
"""From so many points on, a scatter is drawn by WebGL."""


class Mark(NamedTuple):
    """How one estimator is drawn, everywhere."""

    color: str
    symbol: str
    dash: str
    rank: int


def mark_of(estimator: str) -> Mark:
    """The mark of an estimator: vermillion rings and dashes if dense, and the same for a name in every figure."""
    if estimator == "dense":
        return Mark(VERMILLION, "circle-open", "dash", 10)
    if estimator in _ESTIMATORS:
        place = _ESTIMATORS.index(estimator)
        return Mark(_COLORS[place % 5], _SYMBOLS[place], _DASHES[place // 5], 20 + place)
    place = zlib.crc32(estimator.encode("utf-8", "replace"))  # an estimator of the user's: the same in every study
    return Mark(_COLORS[place % 5], _SYMBOLS[place % len(_SYMBOLS)], _DASHES[place % 3], 50)


def in_order(estimators: Iterable[str]) -> list[str]:
    """Estimators in the order of every legend, each once: dense, those that ship, others by name."""
    return sorted(set(estimators), key=lambda name: (mark_of(name).rank, name))


def marker(estimator: str, size: float = 10) -> dict[str, Any]:
    """Plotly's marker of an estimator."""
    mark = mark_of(estimator)
    edge = {"width": 3, "color": mark.color} if estimator == "dense" else {"width": 1, "color": GREY}
    return {"color": mark.color, "symbol": mark.symbol, "size": size, "line": edge}


def label_of(estimator: str) -> str:
    """The legend's text, escaped."""
    return "dense control" if estimator == "dense" else escaped(short(estimator))


def short(text: str, most: int = 24) -> str:
    """Plain text that a narrow page has room for, its middle left out where it is longer."""
    tail = most // 3
    return text if len(text) <= most else f"{text[: most - tail - 1]}…{text[-tail:]}"


def trial_lines(estimators: dict[int, str]) -> dict[int, dict[str, Any]]:
    """Plotly's line of each trial, by its estimator: in its colour, dashed unlike all others of that colour."""
    lines: dict[int, dict[str, Any]] = {}
    used: dict[str, int] = {}
    for trial, estimator in estimators.items():
        color = mark_of(estimator).color
        place = used[color] = used.get(color, -1) + 1
        dashes = _DENSE_DASHES if estimator == "dense" else _TRIAL_DASHES
        lines[trial] = {"color": color, "dash": dashes[place % len(dashes)], "width": 2}
    return lines


def line_of(place: int) -> dict[str, Any]:
    """Plotly's line of the study at a place among those compared."""
    colors = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILLION)
    return {"color": colors[place % len(colors)], "width": 2.5, "dash": _DASHES[place // len(colors) % 3]}


def study_names(studies: Sequence[StudyResults]) -> list[str]:
    """Names that tell studies apart, plain: those of one name by their directory too."""
    names = [study.name for study in studies]
    return [one.name if names.count(one.name) == 1 else f"{one.name} ({one.path.name})" for one in studies]


def study_labels(studies: Sequence[StudyResults]) -> list[str]:
    """`study_names` for a legend, short and escaped."""
    return [escaped(short(name)) for name in study_names(studies)]


def scatter_of(points: int) -> Any:
    """Scatter, or its WebGL twin where points are so many that a browser would stall."""
    from plotly.graph_objects import Scatter, Scattergl

    return Scattergl if points >= GPU_DRAWN else Scatter


def new_figure(x_title: str = "", y_title: str = "", **layout: Any) -> Figure:
    """An empty figure of one panel."""
    from plotly.graph_objects import Figure

    figure = Figure(layout=_layout(**layout))
    figure.update_xaxes(title_text=x_title, **_AXIS)
    figure.update_yaxes(title_text=y_title, **_AXIS)
    return figure


def new_panels(y_titles: Sequence[str], x_titles: Sequence[str], height: int, **layout: Any) -> Figure:
    """Panels below one another, which also a narrow page can show; as high as `height` pixels for each.

    Where all x titles but the last are empty, the panels share that axis.
    """
    from plotly.subplots import make_subplots

    rows = len(y_titles)
    shared = not any(x_titles[:-1])
    gap = (24 if shared else 62) / (height * rows)
    figure: Figure = make_subplots(rows=rows, cols=1, shared_xaxes=shared, vertical_spacing=gap if rows > 1 else 0.0)
    figure.update_layout(_layout(height=height * rows + 110, **layout))
    figure.update_xaxes(**_AXIS)
    figure.update_yaxes(**_AXIS)
    for row, (y_title, x_title) in enumerate(zip(y_titles, x_titles, strict=True), start=1):
        figure.update_xaxes(title_text=x_title, row=row, col=1)
        figure.update_yaxes(title_text=y_title, row=row, col=1)
    return figure


def say(figure: Figure, text: str) -> Figure:
    """Plain text in the middle of a figure that has nothing else to show."""
    lines = "<br>".join(escaped(line) for line in textwrap.wrap(text, 44))
    figure.add_annotation(text=lines, showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure.update_layout(meta={"nothing": text})


def nothing_to_show(figure: Figure) -> str:
    """The reason that `say` has given; empty for a figure that shows something."""
    return str((figure.layout.meta or {}).get("nothing", ""))


def caption(figure: Figure, text: str) -> Figure:
    """Plain text above a figure: what must be known to read it."""
    lines = textwrap.wrap(text, 56)
    above = _BUTTONS_PX if figure.layout.updatemenus else 0
    # from the figure's left edge, not the panel's: long labels may leave little beside them
    figure.update_layout(
        title={
            "text": "<br>".join(map(escaped, lines)), "font": {"size": 12}, "xref": "container", "x": 0,
            "xanchor": "left", "yref": "container", "y": 1, "yanchor": "top", "pad": {"l": 10, "t": 16},
        }
    )  # fmt: skip
    return figure.update_layout(margin_t=14 + above + 17 * len(lines))


def buttons(choices: Sequence[tuple[str, list[Any]]]) -> dict[str, Any]:
    """A row of buttons: (label, arguments of Plotly's `update`) each; the first is what the figure shows."""
    menu = [{"label": escaped(label), "method": "update", "args": args} for label, args in choices]
    return {
        "type": "buttons", "direction": "right", "buttons": menu, "showactive": True,
        "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 8},
        "font": {"size": 12, "color": "#1c1c1c"}, "bgcolor": "#f5f6f7", "bordercolor": GREY,
    }  # fmt: skip


def escaped_lines(text: str) -> str:
    """Plain lines as Plotly text: markup stays text, lines stay lines."""
    if text.replace("\n", "").isprintable():  # as most text is: ten thousand points have a million characters
        return html.escape(text).replace("\n", "<br>")
    return "<br>".join(escaped(line) for line in text.split("\n"))


def drawn(values: Iterable[float], axis: Axis) -> list[float | None]:
    """Values in an axis's unit, to 6 digits, which is what a page must carry; NaN is a gap."""
    return [float(f"{value * axis.factor:.6g}") if math.isfinite(value) else None for value in values]


_AXIS = {"gridcolor": FAINT, "zeroline": False, "automargin": True, "tickformat": "~g", "title_standoff": 6}
_BUTTONS_PX = 44


def _layout(**more: Any) -> dict[str, Any]:
    return {
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": TEXT},
        "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        # below the panels: a long legend then costs a narrow page no width, and buttons keep their place
        "legend": {
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "x": 0,
            "traceorder": "normal",
        },
        "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "font": {"color": "#1c1c1c"}},
        **more,
    }
