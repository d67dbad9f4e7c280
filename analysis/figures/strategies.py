"""Accuracy, energy and time of each strategy on each model, as the papers draw them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from analysis.figures import style
from analysis.text import escaped
from analysis.trials import estimator, is_compared, meaningful_config, useful, varying_config
from sbp_tune.study.results import StudyResults
from sbp_tune.units import axis_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_METRICS = ("test_accuracy", "val_accuracy", "kwh", "train_time_s")
_PATTERNS = {"": "", "constant": "", "linear": "/", "exponential": "x"}
_WORDS = {"constant": "plain", "linear": "stripes", "exponential": "crosses"}


class StrategiesInfo(NamedTuple):
    """bars: one row for each model (with its data set) and strategy (estimator and schedule), in the order of every
    legend: model, strategy, estimator, schedule, seeds, and for test_accuracy, val_accuracy, kwh and train_time_s
    the mean and, `<metric>_se`, its standard error (NaN for one seed). accuracy: test_accuracy if any trial was
    tested, else val_accuracy.
    """

    bars: pd.DataFrame
    accuracy: str


def strategies_info(*studies: StudyResults) -> StrategiesInfo:
    """The most accurate config of each strategy and model, over the complete trials that ran it with some seed.

    A metric that no trial has is NaN. A confirmation, loaded as the study that it is, gives test accuracies and
    several seeds.
    """
    trials = pd.concat([_trials(place, study) for place, study in enumerate(studies)], ignore_index=True)
    trials = trials[trials["val_accuracy"].notna()]
    if trials.empty:
        return StrategiesInfo(pd.DataFrame(columns=_COLUMNS), "val_accuracy")
    group = ["model", "estimator", "schedule"]
    of_config = trials.groupby([*group, "config"])
    means = of_config[list(_METRICS)].mean()
    bars = means.join(of_config[list(_METRICS)].sem().add_suffix("_se")).assign(seeds=of_config.size())
    # of equally accurate configs the one that cost least
    bars = bars.reset_index().sort_values(["val_accuracy", "kwh"], ascending=[False, True], kind="stable")
    bars = bars.drop_duplicates(group)
    bars["strategy"] = (bars["estimator"] + " " + bars["schedule"]).str.strip()
    bars["rank"] = [style.mark_of(name).rank for name in bars["estimator"]]
    bars = bars.sort_values(["model", "rank", "estimator", "schedule"], ignore_index=True)
    tested = bool(bars["test_accuracy"].notna().any())
    return StrategiesInfo(bars[_COLUMNS], "test_accuracy" if tested else "val_accuracy")


def plot_strategies(*studies: StudyResults) -> Figure:
    """Bars of accuracy, energy and training time by model, a colour an estimator, a pattern a schedule."""
    return draw_strategies(strategies_info(*studies))


def draw_strategies(info: StrategiesInfo) -> Figure:
    """`plot_strategies` of data that is there already."""
    if info.bars.empty:
        return style.say(style.new_figure(), "No trial has finished with its accuracy.")
    names = [name for name in (info.accuracy, "kwh", "train_time_s") if info.bars[name].notna().any()]
    axes = {name: axis_of(name, info.bars[name]) for name in names}
    figure = style.new_panels([axes[name].title for name in names], [""] * len(names), height=250, barmode="group")
    for strategy in dict.fromkeys(info.bars.sort_values("rank", kind="stable")["strategy"]):
        rows = info.bars[info.bars["strategy"] == strategy]
        kind, schedule = rows["estimator"].iloc[0], rows["schedule"].iloc[0]
        look: dict[str, Any] = {
            "color": style.mark_of(kind).color,
            "pattern": {"shape": _PATTERNS.get(schedule, "."), "solidity": 0.3},
        }
        for row, name in enumerate(names, start=1):
            axis = axes[name]
            errors: dict[str, Any] = {"color": style.GREY, "thickness": 1.5}
            if rows[f"{name}_se"].notna().any():
                errors["array"] = style.drawn(rows[f"{name}_se"], axis)
            figure.add_bar(
                x=[escaped(model) for model in rows["model"]], y=style.drawn(rows[name], axis), error_y=errors,
                marker=look, legendgroup=style.label_of(kind), showlegend=False, offsetgroup=escaped(strategy),
                customdata=rows["seeds"].tolist(), text=[escaped(strategy)] * len(rows), textposition="none",
                hovertemplate=f"%{{x}}, %{{text}}<br>{axis.title}: %{{y:.4~g}}<br>seeds: %{{customdata}}"
                "<extra></extra>", row=row, col=1,
            )  # fmt: skip
    for kind, strategy in info.bars.drop_duplicates("estimator")[["estimator", "strategy"]].itertuples(index=False):
        mark = style.mark_of(kind)  # a key without a pattern, whichever schedules there are
        figure.add_bar(
            x=[None], y=[None], marker_color=mark.color, name=style.label_of(kind) if kind != "dense" else "dense",
            legendgroup=style.label_of(kind), legendrank=mark.rank, offsetgroup=escaped(strategy),
        )  # fmt: skip
    figure.update_xaxes(type="category")
    text = "Of each, the most accurate config. "
    if (info.bars["seeds"] > 1).any():
        text += "Whiskers: standard error over its seeds. "
    used = [name for name in _PATTERNS if name in set(info.bars["schedule"]) and name]
    text += f"Patterns: {', '.join(f'{_WORDS[name]} {name}' for name in used)}." if used else ""
    return style.caption(figure, text)


_COLUMNS = [
    *("model", "strategy", "estimator", "schedule", "rank", "seeds"),
    *_METRICS,
    *(f"{name}_se" for name in _METRICS),
]


def _trials(place: int, study: StudyResults) -> pd.DataFrame:
    config, varying = meaningful_config(study), varying_config(study)
    same = varying[[key for key in varying if key != "seed"]].astype(str)

    def text(key: str) -> pd.Series:
        return config[key].map(lambda value: value or "") if key in config else pd.Series("", index=config.index)

    frame = pd.DataFrame({name: useful(study, name) for name in _METRICS})
    frame["model"] = (text("model.name") + " " + text("data.name")).str.strip().replace("", study.name)
    frame["estimator"], frame["schedule"] = estimator(study), text("sparsity.schedule")
    rows = same.itertuples(index=False, name=None)
    frame["config"] = [f"{place} {values}" for values in rows] if len(frame) else []
    return frame[is_compared(study)]
