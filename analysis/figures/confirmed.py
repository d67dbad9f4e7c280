"""Confirmed points as the Pareto figure draws them: means with intervals."""

from __future__ import annotations

import pandas as pd

from analysis.confirmed import MEASURED, read_confirmed
from analysis.confirmed_table import confirmed_table
from analysis.trials import records
from sbp_tune.study.results import StudyResults

_COLUMNS = ["trial", "role", "x", "x_half", "y", "y_half", "hover"]


def confirmed_rows(study: StudyResults, x: str, y: str) -> pd.DataFrame:
    """One row per confirmed point: trial, role ('control' or 'point'), x, x_half, y, y_half (half of the 95 %
    interval, NaN with one seed), hover (plain text lines); empty where nothing, or neither metric, was confirmed.
    """
    points = read_confirmed(study)
    if points.empty or x not in MEASURED or y not in MEASURED:
        return pd.DataFrame(columns=_COLUMNS)
    values = {"trial": points["trial"], "role": points["role"]}
    for axis, name in (("x", x), ("y", y)):
        values |= {axis: points[f"{name}_mean"], f"{axis}_half": points[f"{name}_high"] - points[f"{name}_mean"]}
    texts = [
        "\n".join([f"trial {row.pop('trial')}, confirmed", *(f"{name}: {value}" for name, value in row.items())])
        for row in records(confirmed_table(points))
    ]
    return pd.DataFrame({**values, "hover": texts}).dropna(subset=["x", "y"]).reset_index(drop=True)
