"""Where a study's energy went: by group of trials, by component, measured or modelled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.pareto import trial_front
from analysis.trials import is_compared, is_complete, is_dense_control, metric
from sbp_tune.study.results import StudyResults

COMPONENTS = {"gpu": "GPU", "cpu": "CPU", "ram": "RAM", "rest": "not itemised"}


class EnergyBillInfo(NamedTuple):
    """The energy bill of all trials, the stopped and failed ones included.

    groups: one row per group that has trials, indexed by its name; columns trials, unrecorded (trials
    whose energy is not known), kwh and its parts gpu, cpu, ram, rest (in kwh but in none of the parts),
    measured_kwh, co2_kg. Energies in kWh; NaN where nothing was recorded, never 0. `total` sums the rows.
    components: one row per component with energy; columns kwh and source, which is 'measured',
    'modelled', 'measured and modelled' or 'unknown'.
    """

    groups: pd.DataFrame
    total: pd.Series
    components: pd.DataFrame


def energy_bill_info(study: StudyResults) -> EnergyBillInfo:
    """Sums kWh over groups of trials: dense controls, on the front, not on the front, stopped, failed, unfinished.

    Each trial is in one group; a dense control on the front counts as dense control, and all that ran on another type
    of device than the one shown (see `device_types`) are a group of their own. Energy whose
    measured share is not known (NaN) is not counted as measured. The idle energy of the machines is not
    part of any trial, and so not of this bill.
    """
    bill = pd.DataFrame({name: metric(study, f"kwh_{name}") for name in ("gpu", "cpu", "ram")})
    kwh = metric(study, "kwh")
    rest = kwh - bill.sum(axis=1)
    bill["rest"] = rest.where(rest > 1e-6 * kwh)  # smaller ones are rounding
    bill["measured_kwh"] = kwh * metric(study, "kwh_measured_share")
    sources = _sources(study)
    bill = bill.assign(kwh=kwh, co2_kg=metric(study, "co2_kg"), trials=1, unrecorded=kwh.isna().astype(int))

    # min_count: a sum of nothing is NaN, not 0 kWh
    groups = bill.groupby(_group(study), observed=True).sum(min_count=1)
    total = bill.sum(min_count=1).fillna({"trials": 0, "unrecorded": 0})
    components = pd.DataFrame(
        {"kwh": total[list(COMPONENTS)], "source": [_summary(sources.get(name)) for name in COMPONENTS]},
        index=pd.Index(COMPONENTS, name="component"),
    )
    components = components[components["kwh"].notna()]
    return EnergyBillInfo(groups.astype({"trials": int, "unrecorded": int}), total, components)


def _group(study: StudyResults) -> pd.Series:
    complete = is_complete(study)
    on_front = study.trials.index.isin(trial_front(study).index)
    state = study.trials["state"]
    rules = {
        "Dense controls": is_dense_control(study),
        "On the front": complete & on_front,
        "Not on the front": is_compared(study, study.objectives),
        "On another type of device": complete,
        "Stopped": state == "stopped",
        "Failed": state == "failed",
        "Running": state == "running",
        "Interrupted": state == "interrupted",
    }
    names = np.select(list(rules.values()), list(rules), default="Running")
    return pd.Series(pd.Categorical(names, categories=list(rules)), index=study.trials.index)


def _sources(study: StudyResults) -> pd.DataFrame:
    """Source of each trial's components [n trials, components]: 'measured', 'modelled', or None if not recorded."""
    words = {"counter": "measured", "integrated": "measured", "model": "modelled"}
    names = [name for name in COMPONENTS if f"kwh_{name}_source" in study.trials]
    return pd.DataFrame({name: study.trials[f"kwh_{name}_source"].map(words.get) for name in names})


def _summary(sources: pd.Series | None) -> str:
    found = set() if sources is None else set(sources.dropna())
    if found == {"measured", "modelled"}:
        return "measured and modelled"
    return found.pop() if len(found) == 1 else "unknown"
