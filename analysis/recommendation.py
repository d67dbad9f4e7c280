"""Which schedule to take from a study, by one rule, and what is known of it: saving, lead, seeds."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.confirmed import Interval, confirmed_runs, interval, read_confirmed
from analysis.confirmed_table import lead_of
from analysis.controls import compare_with_dense, control_curve, dense_curve
from analysis.text import one_line, shown
from analysis.trials import (
    estimator,
    is_candidate,
    is_dense_control,
    meaningful_config,
    records,
    searched_config,
    useful,
)
from sbp_tune.study.results import StudyResults

WITHIN = 0.01
"""How far below the best dense control an accuracy may be, as a fraction, to be called as good."""

RULE = (
    f"of the sparse trials above the dense-control curve, the one of least energy within {100 * WITHIN:g} percentage "
    "point of the best dense control, or the one of surest lead where none is that accurate; where no sparse trial is "
    "above the curve, the dense control of least energy within that point"
)


class Recommendation(NamedTuple):
    """The trial to take, and intervals of what is known of it over its seeds; a single run has no ends.

    accuracy_name: test_accuracy, or val_accuracy where nothing was tested. saving: 1 - kWh / kWh of the dense-control
    curve at the same accuracy; of a dense trial, against the dearest control. beyond: it is more accurate than every
    control, so that the saving is against the dearest. lead: accuracy above the curve at the same energy, NaN for
    dense ones. dense_kwh: of the dearest control. near: its accuracy is within WITHIN of the best control.
    """

    trial: int
    estimator: str
    confirmed: bool
    seeds: int
    accuracy_name: str
    accuracy: Interval
    kwh: Interval
    saving: Interval
    beyond: bool
    lead: Interval
    dense_kwh: float
    near: bool

    @property
    def is_dense(self) -> bool:
        """Whether the study gives no reason to train sparsely."""
        return self.estimator == "dense"


def recommendation(study: StudyResults) -> Recommendation | None:
    """By RULE, among confirmed points where there are any; None where no control, or no energy, tells."""
    points = read_confirmed(study)
    if len(points) and (points["role"] == "control").any():
        return _confirmed(study, points)
    return _single_runs(study)


def unconfirmed_leads(study: StudyResults) -> list[int]:
    """Sparse trials above the dense curve that were not run again, the largest lead first."""
    compared = compare_with_dense(study)
    above = compared[(compared["verdict"] == "above") & compared["trial"].isin(_candidates(study))]
    repeated = set(read_confirmed(study)["trial"])
    ordered = above.sort_values("lead", ascending=False)["trial"]
    return [int(trial) for trial in ordered if trial not in repeated]


def words_of(study: StudyResults, trial: int) -> str:
    """A trial's schedule in a few words: 'grid, p 0.5 linear, k 0.02, 25 epochs'."""
    row = study.trials["trial"] == trial
    alone = dataclasses.replace(study, trials=study.trials[row])
    config = {str(key): value for key, value in meaningful_config(alone).iloc[0].items() if value is not None}
    searched = {str(key): value for key, value in searched_config(study)[row].iloc[0].items() if value is not None}
    words = [str(estimator(alone).iloc[0])]
    if "sparsity.p0" in config:
        words.append(" ".join(["p", shown(config["sparsity.p0"]), str(config.get("sparsity.schedule", ""))]).strip())
    if "sparsity.k" in config:
        words.append(f"k {shown(config['sparsity.k'])}")
    if "epochs" in config:
        words.append(f"{shown(config['epochs'])} epochs")
    said = {"sparsity.p0", "sparsity.schedule", "sparsity.k", "epochs"}
    words += [f"{key.removeprefix('sparsity.')} {shown(value)}" for key, value in searched.items() if key not in said]
    return one_line(", ".join(words))


def _candidates(study: StudyResults) -> set[int]:
    return set(study.trials["trial"][is_candidate(study)])


def _confirmed(study: StudyResults, points: pd.DataFrame) -> Recommendation | None:
    name = lead_of({f"lead_{one}_mean": points[f"lead_{one}_mean"].max() for one in ("test_accuracy", "val_accuracy")})
    name = name.removeprefix("lead_")
    rows = points.assign(
        accuracy=points[f"{name}_mean"], kwh=points["kwh_mean"], lead=points[f"lead_{name}_low"].astype(float)
    ).dropna(subset=["accuracy", "kwh"])
    controls = rows[rows["role"] == "control"]
    above = rows[(rows["verdict"] == "above") & rows["trial"].isin(_candidates(study))]
    chosen = _by_rule(above, controls)
    if chosen is None:
        return None
    accuracy, kwh, lead = (_interval_of(chosen, key) for key in (name, "kwh", f"lead_{name}"))
    runs = confirmed_runs(study)
    runs = runs[runs["state"] == "complete"]
    mine, dense = runs[runs["point"] == chosen["trial"]], runs[runs["point"].isin(controls["trial"])]
    dense_kwh = float(controls["kwh"].max())
    if chosen["role"] == "control":
        saving, beyond = Interval(0, 1 - kwh.mean / dense_kwh, math.nan, math.nan, math.nan), False
    else:
        savings = [_saving(run[name], run["kwh"], dense[dense["seed"] == run["seed"]], name) for run in records(mine)]
        saving = interval(pd.Series([one for one, _ in savings], dtype=float))
        beyond = any(past for _, past in savings)
    number, kind, seeds = int(chosen["trial"]), str(chosen["estimator"]), int(chosen["seeds"])
    near = chosen["accuracy"] >= controls["accuracy"].max() - WITHIN
    return Recommendation(
        number, kind, True, seeds, name, accuracy, kwh, saving, beyond, lead, dense_kwh, bool(near)
    )  # fmt: skip


def _single_runs(study: StudyResults) -> Recommendation | None:
    dense = is_dense_control(study) & study.trials["trial"].isin(_candidates(study))
    controls = pd.DataFrame(
        {
            "trial": study.trials["trial"],
            "estimator": "dense",
            "accuracy": useful(study, "val_accuracy"),
            "kwh": useful(study, "kwh"),
            "lead": math.nan,
        }
    )[dense].dropna(subset=["accuracy", "kwh"])
    compared = compare_with_dense(study).rename(columns={"val_accuracy": "accuracy"})
    above = compared[(compared["verdict"] == "above") & compared["trial"].isin(_candidates(study))]
    chosen = _by_rule(above, controls)
    if chosen is None:
        return None
    accuracy, kwh = float(chosen["accuracy"]), float(chosen["kwh"])
    curve, dense_kwh = dense_curve(study), float(controls["kwh"].max())
    is_dense = chosen["estimator"] == "dense"
    saving, beyond = (1 - kwh / dense_kwh, False) if is_dense else _saving(accuracy, kwh, curve, "val_accuracy")
    once = [Interval(1, value, math.nan, math.nan, math.nan) for value in (accuracy, kwh, saving, chosen["lead"])]
    near = accuracy >= controls["accuracy"].max() - WITHIN
    return Recommendation(
        int(chosen["trial"]), str(chosen["estimator"]), False, 1, "val_accuracy", once[0], once[1], once[2], beyond,
        once[3], dense_kwh, bool(near),
    )  # fmt: skip


def _by_rule(above: pd.DataFrame, controls: pd.DataFrame) -> dict[str, Any] | None:
    """RULE on rows with trial, accuracy, kwh and lead."""
    if controls.empty:
        return None
    enough = controls["accuracy"].max() - WITHIN - 1e-12  # 0.95 - 0.01 is a little more than 0.94
    near = above[above["accuracy"] >= enough]
    if len(near):
        return records(near.sort_values(["kwh", "trial"]))[0]
    if len(above):
        return records(above.sort_values(["lead", "kwh"], ascending=[False, True]))[0]
    return records(controls[controls["accuracy"] >= enough].sort_values(["kwh", "trial"]))[0]


def _saving(accuracy: float, kwh: float, controls: pd.DataFrame, name: str) -> tuple[float, bool]:
    """1 - kwh / kWh of dense training of that accuracy, and whether no control is as accurate.

    NaN below every control: dense training of that accuracy may cost anything less.
    """
    curve = control_curve(controls[["kwh", name]])
    rising = curve[~curve[name].duplicated()]  # the cheapest of the equally accurate
    if rising.empty or not accuracy >= rising[name].iloc[0]:
        return math.nan, False
    dense = float(np.interp(accuracy, rising[name], rising["kwh"]))
    return (1 - kwh / dense if dense > 0 else math.nan), bool(accuracy > rising[name].iloc[-1])


def _interval_of(point: dict[str, Any], name: str) -> Interval:
    mean, se, low, high = (float(point[f"{name}_{key}"]) for key in ("mean", "se", "low", "high"))
    return Interval(int(point["seeds"]), mean, se, low, high)
