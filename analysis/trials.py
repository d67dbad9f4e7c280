"""What figures, report and export read from a study's table of trials. All results are in its row order."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sbp_tune.config import DECIDING_KEYS, is_meaningless
from sbp_tune.study import results
from sbp_tune.study.device_types import device_of, shown_device
from sbp_tune.study.results import StudyResults
from sbp_tune.study.sections import OF_THE_DEVICE

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
    """Which trials ran to their end [n trials]."""
    return study.trials["state"] == "complete"


def is_shown(study: StudyResults, names: Collection[str] = OF_THE_DEVICE) -> pd.Series:
    """Which trials ran on the type of device that is shown [n trials]; all, where none of the metrics depends on it."""
    if set(names).isdisjoint(OF_THE_DEVICE):
        return pd.Series(True, index=study.trials.index)
    if "device" not in study.trials or study.trials["device"].nunique(dropna=False) < 2:
        return pd.Series(True, index=study.trials.index)
    return device_of(study) == shown_device(study)


def is_compared(study: StudyResults, names: Collection[str] = OF_THE_DEVICE) -> pd.Series:
    """Which trials compare with each other in these metrics [n trials]: complete ones on one type of device."""
    return is_complete(study) & is_shown(study, names)


def is_candidate(study: StudyResults) -> pd.Series:
    """Which trials may be points of a front [n trials]: those that ran to their end and meet all constraints.

    In a study with constraints, not one of which it is not known yet. On one type of device, where objectives depend
    on it.
    """
    complete = is_compared(study, study.objectives)
    if not study.study.get("search", {}).get("constraints") or "feasible" not in study.trials:
        return complete
    return complete & study.trials["feasible"].eq(True)


def estimator(study: StudyResults) -> pd.Series:
    """Estimator of each trial [n trials] as text; 'unknown' where a trainable has none."""
    if _CONFIG + _ESTIMATOR not in study.trials:
        return pd.Series("unknown", index=study.trials.index, dtype=object)
    column = study.trials[_CONFIG + _ESTIMATOR].astype(object)
    return column.where(column.notna(), "unknown").map(str)


def is_dense_control(study: StudyResults) -> pd.Series:
    """Which trials are complete dense runs, on one type of device [n trials]: the curve a sparse method must beat.

    Baselines, and what a search proposes that has `dense` among its estimators and so tunes both sides alike.
    """
    return is_compared(study) & (estimator(study) == "dense")


def devices(study: StudyResults) -> list[str]:
    """Names of the devices that trials ran on, in order of first use; empty where none was recorded."""
    return study.trials["device"].dropna().map(str).unique().tolist() if "device" in study.trials else []


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain dicts, in order."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def meaningful_config(study: StudyResults) -> pd.DataFrame:
    """All config values [n trials, dotted keys].

    A cell is None where the trial does not have the key, or where the key has no effect on the trial
    (the keep fraction of a dense run).
    """
    keys = [name.removeprefix(_CONFIG) for name in map(str, study.trials) if name.startswith(_CONFIG)]
    config = study.trials[[_CONFIG + key for key in keys]].astype(object)
    config.columns = pd.Index(keys)
    config = config.where(config.notna(), None)
    values = np.array(config, dtype=object)  # pandas would set cells far more slowly
    for places, deciding in _by_deciding_values(config):
        idle = np.array([is_meaningless(key, deciding) for key in keys], dtype=bool)
        values[np.ix_(places, np.flatnonzero(idle))] = None
    return pd.DataFrame(values, index=config.index, columns=config.columns, dtype=object)


def _by_deciding_values(config: pd.DataFrame) -> Iterator[tuple[NDArray[np.intp], dict[str, Any]]]:
    """Places of rows with the same values of the keys on which the effect of others depends, and these: few groups."""
    keys = [key for key in DECIDING_KEYS if key in config]
    if not keys:
        yield np.arange(len(config)), {}
        return
    group = config.groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    for number in range(group.max(initial=-1) + 1):
        places = np.flatnonzero(group == number)
        values = records(config[keys].iloc[places[:1]])[0]
        yield places, {key: value for key, value in values.items() if value is not None}


def varying_config(study: StudyResults) -> pd.DataFrame:
    """Config values that differ between trials [n trials, dotted keys], the estimator apart; None as above."""
    config = meaningful_config(study)
    return config[[key for key in config if key != _ESTIMATOR and _varies(config[key])]]


def searched_config(study: StudyResults) -> pd.DataFrame:
    """As `varying_config`, without keys of sparsity that differ between trials only in that dense ones have none.

    Those of the schedule stay: of a single sparse trial they say what it is.
    """
    config = varying_config(study)
    constant = [key for key in map(str, config) if key.startswith("sparsity.") and config[key].nunique() < 2]
    return config.drop(columns=[key for key in constant if key not in _SCHEDULE])


_SCHEDULE = ("sparsity.schedule", "sparsity.p0", "sparsity.k")


def _varies(column: pd.Series) -> bool:
    present = column.dropna()
    return 0 < len(present) < len(column) or len({str(value) for value in present.unique()}) > 1
