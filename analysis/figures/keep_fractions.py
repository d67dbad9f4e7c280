"""What chosen trials keep of the backward pass: p(t) over the epochs, and p_l over the depth of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from analysis.figures import style
from analysis.figures.chosen import chosen_trials
from analysis.trials import estimator
from sbp_tune.config import TrainConfig, check_config
from sbp_tune.schedules import keep_fraction
from sbp_tune.study.results import StudyResults

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class KeepFractionsInfo(NamedTuple):
    """Keep fractions of some trials.

    epochs: trial, epoch (from 0), planned (p(t) by the schedule; NaN after the start of one that follows the
    training), recorded (NaN where no epoch was recorded). layers: of the sparse ones, trial, layer (its name; empty
    where all keep the same), depth (0 first, 1 last), keep (the mean of p_l over the planned epochs).
    estimators: by trial, in the order of drawing.
    """

    epochs: pd.DataFrame
    layers: pd.DataFrame
    estimators: dict[int, str]


def keep_fractions_info(study: StudyResults, trials: Sequence[int] | None = None) -> KeepFractionsInfo:
    """Of the trials named, or of the sparse ones spread over the front.

    Layers that differ are those of the network itself, which is built for it (and takes torch); a uniform
    profile needs none. InputError for a number that the study does not have, and for a config that trains nothing.
    """
    rows = chosen_trials(study, trials)
    kinds = dict(zip(rows["trial"], estimator(study)[rows.index], strict=True))
    if trials is None:
        kinds = {trial: kind for trial, kind in kinds.items() if kind not in ("dense", "unknown")}
    order = sorted(kinds, key=lambda trial: (style.mark_of(kinds[trial]).rank, kinds[trial], trial))
    epochs, layers = [_NO_EPOCHS], [_NO_LAYERS]
    for trial in order:
        config = check_config(study.config_of(trial), f"trial {trial}")
        of_trial = study.epochs[study.epochs["trial"] == trial]
        epochs.append(_planned(config, of_trial).assign(trial=trial))
        layers.append(_by_depth(config, epochs[-1]["planned"]).assign(trial=trial))
    return KeepFractionsInfo(
        pd.concat(epochs[1:] or epochs, ignore_index=True)[_NO_EPOCHS.columns],
        pd.concat(layers[1:] or layers, ignore_index=True)[_NO_LAYERS.columns],
        {trial: kinds[trial] for trial in order},
    )


def plot_keep_fractions(study: StudyResults, trials: Sequence[int] | None = None) -> Figure:
    """p(t) above, planned as lines and recorded as points where it differs; the mean p_l by depth below."""
    info = keep_fractions_info(study, trials)
    titles = ["Kept fraction p(t)", "Mean p<sub>l</sub> of a layer"]
    figure = style.new_panels(titles, ["Epoch, from 0", "Depth of the layer (0 first, 1 last)"], height=240)
    if not info.estimators:
        return style.say(figure, "No sparse trial is on the front; name the trials to draw.")
    lines = style.trial_lines(info.estimators)
    for trial, kind in info.estimators.items():
        mark = style.mark_of(kind)
        rows = info.epochs[info.epochs["trial"] == trial]
        name = f"{trial} {style.label_of(kind)}"
        shared = {"name": name, "legendgroup": str(trial), "legendrank": mark.rank}
        line, where = lines[trial], "<extra>%{fullData.name}</extra>"
        figure.add_scatter(
            x=rows["epoch"].tolist(), y=_short(rows["planned"]), mode="lines", line={**line, "shape": "hv"}, **shared,
            customdata=[trial] * len(rows), hovertemplate=f"epoch %{{x}}: %{{y:.3f}}{where}", row=1, col=1,
        )  # fmt: skip
        odd = rows[rows["recorded"].notna() & ~((rows["recorded"] - rows["planned"]).abs() <= 0.005)]
        if len(odd):
            figure.add_scatter(
                x=odd["epoch"].tolist(), y=_short(odd["recorded"]), mode="markers", marker=style.marker(kind, 6),
                showlegend=False, hovertemplate=f"epoch %{{x}}, recorded: %{{y:.3f}}{where}", **shared, row=1, col=1,
            )  # fmt: skip
        deep = info.layers[info.layers["trial"] == trial]
        names = [style.escaped_lines(layer) or "all sparse layers" for layer in deep["layer"]]
        figure.add_scatter(
            x=_short(deep["depth"]), y=_short(deep["keep"]), mode="lines", line=line, showlegend=False, **shared,
            text=names, hovertemplate=f"%{{text}}: %{{y:.3f}}{where}", row=2, col=1,
        )  # fmt: skip
    figure.update_yaxes(range=[0, 1.05])
    return figure


_NO_EPOCHS = pd.DataFrame(columns=["trial", "epoch", "planned", "recorded"])
_NO_LAYERS = pd.DataFrame(columns=["trial", "layer", "depth", "keep"])


def _planned(config: TrainConfig, recorded: pd.DataFrame) -> pd.DataFrame:
    sparsity = config.sparsity
    planned = [keep_fraction(sparsity, epoch, config.epochs) for epoch in range(config.epochs)]
    if sparsity.schedule == "adaptive" and sparsity.estimator != "dense":
        start = next((epoch for epoch, kept in enumerate(planned) if kept < 1), 0)
        planned = [kept if epoch <= start or kept >= 1 else np.nan for epoch, kept in enumerate(planned)]
    by_epoch = pd.Series(recorded["keep_fraction"].to_numpy(dtype=float), index=recorded["epoch"].astype(int) - 1)
    epochs = pd.RangeIndex(config.epochs)
    return pd.DataFrame({"epoch": epochs, "planned": planned, "recorded": by_epoch.reindex(epochs).to_numpy()})


def _by_depth(config: TrainConfig, planned: pd.Series) -> pd.DataFrame:
    layers = config.sparsity.layers
    if config.sparsity.estimator == "dense" or (layers.profile == "uniform" and not layers.overrides):
        return pd.DataFrame({"layer": "", "depth": [0.0, 1.0], "keep": planned.mean()})
    from sbp_tune.schedule_plot import schedule_info  # loads torch

    info = schedule_info(config)
    keep = np.mean(info.keep_of_layer, axis=1)
    layers_of = pd.DataFrame({"layer": info.layers, "depth": np.linspace(0, 1, len(keep)), "keep": keep})
    return layers_of[layers_of["keep"] < 1]


def _short(values: pd.Series) -> list[float | None]:
    return [float(f"{value:.4g}") if value == value else None for value in values]
