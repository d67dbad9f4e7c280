"""Theory against measurement: the FLOPs that a trial left out, and the energy that this saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from analysis.figures import style
from analysis.figures.hover import hover_lines
from analysis.trials import estimator, is_complete, useful, varying_config
from sbp_tune.study.results import StudyResults

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Keys on which the cost of a dense epoch depends; others, such as the learning rate, change no cost.
_COSTLY = ("data.", "model.", "optimizer.name", "precision", "memory_format", "cpu_threads", "device")


class FlopSavingInfo(NamedTuple):
    """Savings of sparse trials per epoch, as fractions of a dense epoch of the same work on the same device.

    trials: trial, estimator, flop_saving (1 - TFLOP an epoch / dense), energy_saving (1 - kWh an epoch / dense).
    estimators: by estimator: trials, the mean of both savings, and flagged: energy_saving is below half of
    flop_saving. without_dense: trials left out because no dense control did the same work.
    """

    trials: pd.DataFrame
    estimators: pd.DataFrame
    without_dense: int


def flop_saving_info(study: StudyResults) -> FlopSavingInfo:
    """Executed FLOPs and energy of each complete sparse trial, against the mean of the dense controls.

    A control does the same work if device, data, model, batch size and number format are the same. Trials
    without kwh, tflop or epoch are left out.
    """
    table = pd.DataFrame(
        {
            "trial": study.trials["trial"],
            "estimator": estimator(study),
            "tflop": useful(study, "tflop") / useful(study, "epoch"),
            "kwh": useful(study, "kwh") / useful(study, "epoch"),
            "work": _work(study),
        }
    )
    table = table[is_complete(study)].dropna()  # of every device, each against its own
    table = table[(table["tflop"] > 0) & (table["kwh"] > 0)]
    dense = table[table["estimator"] == "dense"].groupby("work")[["tflop", "kwh"]].mean()
    sparse = table[~table["estimator"].isin(["dense", "unknown"])].join(dense.add_suffix("_dense"), on="work")
    known = sparse.dropna()
    trials = pd.DataFrame(
        {
            "trial": known["trial"],
            "estimator": known["estimator"],
            "flop_saving": 1 - known["tflop"] / known["tflop_dense"],
            "energy_saving": 1 - known["kwh"] / known["kwh_dense"],
        }
    ).reset_index(drop=True)
    means = trials.groupby("estimator")[["flop_saving", "energy_saving"]].mean()
    means = means.reindex(style.in_order(means.index)).rename_axis("estimator")
    means.insert(0, "trials", trials.groupby("estimator").size().astype(int))
    saves = means["flop_saving"] > 1e-6  # rounding is no saving
    means["flagged"] = saves & (means["energy_saving"] < means["flop_saving"] / 2)
    return FlopSavingInfo(trials, means, len(sparse) - len(known))


def plot_flop_saving(study: StudyResults) -> Figure:
    """Each sparse trial; on the upper line all FLOPs saved are energy saved, below the lower one not half of them."""
    info = flop_saving_info(study)
    figure = style.new_figure("FLOPs saved (%)", "Energy saved (%)")
    if info.trials.empty:
        return style.say(figure, "No sparse trial can be compared: it takes FLOPs, energy, and a dense control of "
                                 "the same work.")  # fmt: skip
    hover = hover_lines(study, ["tflop"], study.trials.index[study.trials["trial"].isin(info.trials["trial"])])
    text = dict(zip(study.trials["trial"][hover.index], hover, strict=True))
    end = max(0.1, info.trials["flop_saving"].max())
    for share, name in ((1.0, "as much as FLOPs"), (0.5, "half as much")):
        line = {"color": style.GREY, "width": 1.5, "dash": "solid" if share == 1 else "dot"}
        figure.add_scatter(x=[0, 100 * end], y=[0, 100 * end * share], mode="lines", line=line, name=name,
                           legendrank=100, hoverinfo="skip")  # fmt: skip
    flagged = [str(name) for name in info.estimators.index[info.estimators["flagged"]]]
    for name in map(str, info.estimators.index):
        rows, mark = info.trials[info.trials["estimator"] == name], style.mark_of(name)
        label = style.label_of(name) + (" (under half)" if name in flagged else "")
        figure.add_trace(
            style.scatter_of(len(rows))(
                x=(100 * rows["flop_saving"]).round(3).tolist(),
                y=(100 * rows["energy_saving"]).round(3).tolist(),
                mode="markers",
                marker=style.marker(name),
                name=label,
                legendgroup=style.label_of(name),
                legendrank=mark.rank,
                customdata=rows["trial"].tolist(),
                text=[style.escaped_lines(text[one]) for one in rows["trial"]],
                hovertemplate="FLOPs saved: %{x:.1f} %<br>energy saved: %{y:.1f} %<br>%{text}<extra></extra>",
            )
        )
    if flagged:
        style.caption(figure, f"Saves under half of what its FLOPs promise: {', '.join(flagged)}.")
    return figure


def _work(study: StudyResults) -> pd.Series:
    """What a dense epoch of each trial's work is [n trials], as text: equal where the work is."""
    config = varying_config(study)
    work = config[[key for key in map(str, config) if key.startswith(_COSTLY)]].astype(str)
    if "device" in study.trials:
        work = work.assign(of=study.trials["device"].astype(str))
    return pd.Series(list(map(str, work.itertuples(index=False, name=None))), index=work.index, dtype=object)
