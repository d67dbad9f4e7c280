"""Which trials of a study compare: kWh and times are those of a type of device, and of no other."""

from __future__ import annotations

import dataclasses
import shlex

import pandas as pd

from sbp_tune.errors import InputError
from sbp_tune.study.results import StudyResults

NOT_RECORDED = "not recorded"


def device_of(study: StudyResults) -> pd.Series:
    """Type of device of each trial, as text [n trials]: a GPU's or a processor's name, several where it went over."""
    if "device" not in study.trials:
        return pd.Series(NOT_RECORDED, index=study.trials.index, dtype=object)
    return study.trials["device"].astype(object).where(study.trials["device"].notna(), NOT_RECORDED).map(str)


def device_counts(study: StudyResults) -> dict[str, int]:
    """Complete trials by type of device, in order of first use."""
    found = device_of(study)[study.trials["state"] == "complete"]
    return {str(name): int((found == name).sum()) for name in found.unique()}


def shown_device(study: StudyResults) -> str:
    """The type within which trials are compared: the one chosen, else that of most dense controls, then most trials."""
    if study.device is not None:
        return study.device
    counts = device_counts(study)
    if len(counts) < 2:
        return next(iter(counts), NOT_RECORDED)
    estimator = study.trials.get("config.sparsity.estimator")
    dense = (study.trials["state"] == "complete") & (estimator == "dense" if estimator is not None else False)
    controls = device_of(study)[dense].value_counts()
    return max(counts, key=lambda name: (int(controls.get(name, 0)), counts[name]))


def with_device(study: StudyResults, wanted: str | None) -> StudyResults:
    """The study with that type shown; None: that of most. InputError where no complete trial ran on it."""
    counts = device_counts(study)
    if wanted is not None and wanted not in counts:
        raise InputError(f"--device: found {wanted!r}; {study.path} ran on: {', '.join(counts) or 'none yet'}")
    return dataclasses.replace(study, device=wanted or shown_device(study))


def mixed_devices(study: StudyResults) -> str | None:
    """What a reader must know of a study whose complete trials ran on several types; None of one on one type."""
    counts, shown = device_counts(study), shown_device(study)
    if len(counts) < 2:
        return None
    of_each = ", ".join(f"{name} ({count})" for name, count in counts.items())
    other = next(name for name in counts if name != shown)
    return (
        f"Its complete trials ran on {len(counts)} types of device: {of_each}. kWh and times of different types do not "
        f"compare: fronts, savings and what to take are of {shown} alone, the energy bill is of all. "
        f"`sbp-tune report {shlex.quote(str(study.path))} --device {shlex.quote(other)}` shows another."
    )
