"""What the search varied, as columns that a figure can put on an axis."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple

import pandas as pd

from analysis.figures import style
from analysis.text import one_line, shown
from analysis.trials import estimator, is_compared, meaningful_config, varying_config
from sbp_tune.errors import InputError
from sbp_tune.study.results import StudyResults

ESTIMATOR = "sparsity.estimator"

Scale = Literal["linear", "log", "category"]


class SearchedInfo(NamedTuple):
    """values: config values of the complete trials [complete trials, dotted keys]; floats, or text of categories,
    None or NaN where the key means nothing to the trial. scales: by key; log where the study file says so.
    """

    values: pd.DataFrame
    scales: dict[str, Scale]


def searched_info(study: StudyResults, keys: Sequence[str] | None = None) -> SearchedInfo:
    """The values of the keys named, or of all that differ between complete trials, the estimator first.

    InputError for a key that no trial has.
    """
    config = meaningful_config(study)
    every = keys is None
    if keys is None:
        several = estimator(study)[is_compared(study, study.objectives)].nunique() > 1 and ESTIMATOR in config
        keys = [*([ESTIMATOR] if several else []), *map(str, varying_config(study))]
    elif unknown := [key for key in keys if key not in config]:
        raise InputError(f"{one_line(unknown[0])}: not a key of any trial; possible: {', '.join(map(str, config))}")
    config = config.loc[is_compared(study, study.objectives), list(keys)]
    if every:
        config = config[[key for key in config if config[key].nunique() > 1]]
    scales = {key: _scale(study, key, config[key]) for key in map(str, config)}
    for key, scale in scales.items():
        if scale == "category":
            config[key] = config[key].map(lambda value: None if value is None else shown(value))
        else:
            config[key] = config[key].astype(float)
    return SearchedInfo(config, scales)


def categories(values: pd.Series) -> list[str]:
    """The texts of a category column, each once, estimators in the order of every legend."""
    found = values.dropna().unique()
    return style.in_order(found) if values.name == ESTIMATOR else sorted(found)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Keys by their last part, where that tells them apart."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def _scale(study: StudyResults, key: str, values: pd.Series) -> Scale:
    present = values.dropna()
    if any(isinstance(value, bool) or not isinstance(value, Real) for value in present):
        return "category"
    node: Any = study.study.get("config")
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return "log" if isinstance(node, dict) and "log_uniform" in node and (present > 0).all() else "linear"
