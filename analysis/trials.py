"""What figures, report and export read from a study's table of trials. All results are in its row order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sbp_tune.config import meaningless_keys
from sbp_tune.study import results
from sbp_tune.study.results import StudyResults

_CONFIG = "config."
_ESTIMATOR = "sparsity.estimator"


def metric(study: StudyResults, name: str) -> pd.Series:
    """One metric as floats [n trials]; NaN where a trial, or the whole study, did not record it."""
    if name not in study.trials:
        return pd.Series(np.nan, index=study.trials.index, name=name, dtype=float)
    return pd.to_numeric(study.trials[name], errors="coerce").astype(float)


def useful(study: StudyResults, name: str) -> pd.Series:
    """As `metric`, but kWh and CO2 without what crashes wasted: what a config is compared by, not billed."""
    return results.useful(study.trials, name)


def is_complete(study: StudyResults) -> pd.Series:
    """Which trials ran to their end [n trials]; only these may be points of a front."""
    return study.trials["state"] == "complete"


def estimator(study: StudyResults) -> pd.Series:
    """Estimator of each trial [n trials] as text; 'unknown' where a trainable has none."""
    if _CONFIG + _ESTIMATOR not in study.trials:
        return pd.Series("unknown", index=study.trials.index, dtype=object)
    column = study.trials[_CONFIG + _ESTIMATOR].astype(object)
    return column.where(column.notna(), "unknown").map(str)


def is_dense_control(study: StudyResults) -> pd.Series:
    """Which trials are complete dense baselines [n trials]: the curve a sparse method must beat."""
    return is_complete(study) & (study.trials["kind"] == "baseline") & (estimator(study) == "dense")


def devices(study: StudyResults) -> list[str]:
    """Names of the devices that trials ran on, in order of first use; empty where none was recorded."""
    return study.trials["device"].dropna().map(str).unique().tolist() if "device" in study.trials else []


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain dicts, in order."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def varying_config(study: StudyResults) -> pd.DataFrame:
    """Config values that differ between trials [n trials, dotted keys], the estimator apart.

    A cell is None where the trial does not have the key, or where the key has no effect on the trial
    (the keep fraction of a dense run).
    """
    keys = [name.removeprefix(_CONFIG) for name in map(str, study.trials) if name.startswith(_CONFIG)]
    config = study.trials[[_CONFIG + key for key in keys]].astype(object)
    config.columns = pd.Index(keys)
    meaningful = config.where(config.notna(), None)
    sparsity = [key for key in keys if key.startswith("sparsity.")]  # no other key depends on what others are
    rows = [{key: value for key, value in row.items() if value is not None} for row in records(meaningful[sparsity])]
    without = [meaningless_keys(row) for row in rows]
    for key in sparsity:
        meaningful[key] = meaningful[key].mask(np.array([key in keys for keys in without], dtype=bool), None)
    varying = [key for key in keys if key != _ESTIMATOR and _varies(meaningful[key])]
    return meaningful[varying]


def _varies(column: pd.Series) -> bool:
    present = column.dropna()
    return 0 < len(present) < len(column) or len(set(map(str, present))) > 1
