"""What a point says of itself when it is pointed at."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from analysis.text import one_line, shown
from analysis.trials import estimator, searched_config, useful
from sbp_tune.study.results import StudyResults
from sbp_tune.units import readable_metric

_ALWAYS = ("val_accuracy", "kwh", "kwh_gpu", "kwh_cpu", "kwh_ram", "kwh_measured_share")


def hover_lines(study: StudyResults, metrics: Iterable[str] = (), rows: pd.Index | None = None) -> pd.Series:
    """Plain text of each trial [n trials, or of `rows`], a fact a line.

    Its number, state and estimator, each config value that differs between trials and has an effect on this
    one, the metrics asked for, and its energy by component with the share that was measured. What was not
    recorded has no line.
    """
    table = study.trials if rows is None else study.trials.loc[rows]
    kinds, config = estimator(study)[table.index], searched_config(study).loc[table.index]
    columns: list[list[str]] = [
        [f"trial {number}, {state}" for number, state in zip(table["trial"], table["state"], strict=True)],
        [f"estimator: {one_line(kind)}" for kind in kinds],
    ]
    columns += [_lines(config[key], str(key)) for key in config]
    for name in dict.fromkeys([*metrics, *_ALWAYS]):
        values = useful(study, name)[table.index]
        columns.append([f"{name}: {readable_metric(name, v)}" if math.isfinite(v) else "" for v in values])
    return pd.Series(
        ["\n".join(filter(None, lines)) for lines in zip(*columns, strict=True)], index=table.index, dtype=object
    )


def _lines(values: pd.Series, key: str) -> list[str]:
    text: dict[object, str] = {None: ""}  # most values come again and again
    return [text[value] if value in text else text.setdefault(value, f"{key}: {shown(value)}") for value in values]
