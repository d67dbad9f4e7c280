"""The curves of `benchmarks.scale` as one picture: what a trial costs the driver, and what a proposal takes.

python -m benchmarks.scale_picture benchmarks/results/scale_*_64gpus_*.csv benchmarks/results/scale_*_latency.csv
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_PARTS = {"ms_suggest": "proposal", "ms_scheduler": "scheduler", "ms_log": "log", "ms_console": "console"}
_COLORS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#D55E00")


def draw(run: pd.DataFrame, latency: pd.DataFrame) -> Figure:
    """Left: ms of the driver for each trial, by part, against trials; right: ms of a proposal by sampler."""
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, subplot_titles=["what a trial costs the driver", "what a proposal takes"])
    for (column, name), color in zip({**_PARTS, "ms_tell": "storage of its end"}.items(), _COLORS, strict=True):
        area = {"x": run["trials"], "y": run[column], "name": name, "stackgroup": "parts", "line": {"color": color}}
        figure.add_scatter(**area, row=1, col=1)
    for (sampler, rows), color in zip(latency.groupby("sampler"), _COLORS, strict=False):
        figure.add_scatter(
            x=rows["trials"], y=rows["ms_a_proposal"], name=f"sampler {sampler}", line={"color": color}, row=1, col=2
        )
    for column in (1, 2):
        figure.update_xaxes(title="trials", row=1, col=column)
        figure.update_yaxes(title="ms of processor time", rangemode="tozero", row=1, col=column)
    figure.update_layout(template="plotly_white", width=1100, height=420, legend={"orientation": "h", "y": -0.2})
    return figure


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    draw(*(pd.read_csv(file) for file in sys.argv[1:])).write_image("scale.png", scale=2)
    print("scale.png")
