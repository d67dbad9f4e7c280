"""The plot of a config's keep fractions: p(t) over the epochs, and p_l of every layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from sbp_tune.config import TrainConfig
from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.schedules import keep_fraction
from sbp_tune.sparsity import sparsify
from sbp_tune.sparsity.allocation import layer_fractions
from sbp_tune.vision import build_model

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class ScheduleInfo(NamedTuple):
    """Keep fractions by epoch, and by layer and epoch: as registered, other parameters last; dense ones keep 1."""

    estimator: str
    schedule: str
    keep: list[float]
    layers: list[str]
    keep_of_layer: list[list[float]]


def schedule_info(config: TrainConfig) -> ScheduleInfo:
    """What the plot shows. Epochs count from 0; `adaptive` is shown as it starts, for it follows the training.

    The network is built for ten classes of colour images: the layers and their share of the FLOPs are
    nearly those of any other data. InputError where the config does not fit the network.
    """
    sparsity = config.sparsity
    size = config.data.image_size or (32 if config.model.stem == "cifar" else 224)
    model = build_model(config.model.model_copy(update={"pretrained": False}), 10, 3, size)
    handle = sparsify(model, sparsity)
    model(torch.zeros(2, 3, size, size))
    handle.remove()
    sparse = list(handle.sparse_layers)
    keep = [keep_fraction(sparsity, epoch, config.epochs) for epoch in range(config.epochs)]
    by_epoch = [layer_fractions(sparsity, p, sparse, handle.flops_of_layer) for p in keep]
    names = list(dict.fromkeys([*(layer.name for layer in handle.layers), *sparse]))
    return ScheduleInfo(
        sparsity.estimator,
        sparsity.schedule,
        keep,
        names,
        [[fractions.get(name, 1.0) for fractions in by_epoch] for name in names],
    )


def plot_schedule(info: ScheduleInfo) -> Figure:
    """p(t) above, p_l by layer and epoch below."""
    from plotly.graph_objects import Heatmap, Scatter
    from plotly.subplots import make_subplots

    epochs = list(range(len(info.keep)))
    figure: Figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.35, 0.65], vertical_spacing=0.05)
    figure.add_trace(Scatter(x=epochs, y=info.keep, mode="lines+markers", line={"shape": "hv"}, name="p(t)"), 1, 1)
    heat = Heatmap(
        x=epochs, y=info.layers, z=info.keep_of_layer, zmin=0, zmax=1, colorscale="Viridis", colorbar={"title": "p_l"}
    )
    figure.add_trace(heat, 2, 1)
    figure.update_yaxes(range=[0, 1.05], title="kept fraction p(t)", row=1, col=1)
    figure.update_yaxes(autorange="reversed", automargin=True, row=2, col=1)
    figure.update_xaxes(title="epoch", row=2, col=1)
    height = 350 + 16 * len(info.layers)
    figure.update_layout(title=f"{info.estimator}, {info.schedule}", template="plotly_white", height=height)
    return figure


def write_schedule_plot(config: TrainConfig, path: Path) -> None:
    """Writes the plot as HTML that needs no network, or as PNG; InputError for another kind of file."""
    if path.suffix not in (".html", ".png"):
        raise InputError(f"{path}: allowed: a name that ends in .html or .png")
    figure = plot_schedule(schedule_info(config))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".html":
        figure.write_html(path, include_plotlyjs=True)
        return
    try:
        figure.write_image(path, scale=2)
    except (ImportError, ValueError, RuntimeError) as error:  # what plotly raises without kaleido or a browser
        reason = str(error).strip().splitlines()[0]
        raise SbpTuneError(f"{path}: a PNG needs kaleido and a browser ({reason}); an .html needs neither") from error
