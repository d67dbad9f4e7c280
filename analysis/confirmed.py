"""Confirmed points: what their repeats with fresh seeds say, with intervals, alone and against dense training.

Runs of one seed are paired: they share initialisation and data order. All intervals are Student's t over seeds, 95 %.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.controls import at_equal_cost, control_curve
from analysis.pareto import front_mask, trial_front
from analysis.picks import by_id, knee_of
from analysis.text import one_line
from analysis.trials import estimator, is_compared, is_complete, is_dense_control, useful
from sbp_tune.errors import InputError
from sbp_tune.files import write_atomic
from sbp_tune.study.results import StudyResults, confirmation_path, load_study

COVERAGE = 0.95
MEASURED = ("test_accuracy", "val_accuracy", "kwh", "train_time_s")
ACCURACIES = MEASURED[:2]
LEADS = tuple(f"lead_{name}" for name in ACCURACIES)
DIFFERENCES = tuple(f"vs_dense_{name}" for name in MEASURED)
POSSIBLE_POINTS = "front, knee, trial=ID[,ID]"


class Interval(NamedTuple):
    """Mean of n values, its standard error, and the ends of its interval; NaN where n is too small for them."""

    n: int
    mean: float
    se: float
    low: float
    high: float


def interval(values: pd.Series) -> Interval:
    """Of the values that are numbers."""
    known = values.dropna().to_numpy(dtype=float)
    n, nan = len(known), math.nan
    if n < 2:
        return Interval(n, float(known[0]) if n else nan, nan, nan, nan)
    from scipy.stats import t

    mean, se = float(known.mean()), float(known.std(ddof=1)) / math.sqrt(n)
    half = float(t.ppf((1 + COVERAGE) / 2, n - 1)) * se
    return Interval(n, mean, se, mean - half, mean + half)


class Chosen(NamedTuple):
    """Trials to confirm, by number: the points, and the dense controls to which they are compared.

    Those are the dense baselines and, of the dense trials that the search has proposed, those on the control curve.
    """

    points: list[int]
    controls: list[int]


def points_to_confirm(study: StudyResults, points: str) -> Chosen:
    """The trials that `front`, `knee` or `trial=ID,ID` means; InputError, a line each, says what is possible."""
    rule, given, value = points.partition("=")
    if (rule, given) not in (("front", ""), ("knee", ""), ("trial", "=")):
        raise InputError(f"points: found {one_line(points)!r}; possible: {POSSIBLE_POINTS}")
    is_control = is_dense_control(study)
    values = pd.DataFrame({name: useful(study, name).where(is_control) for name in ("kwh", "val_accuracy")})
    wanted = is_control & ((study.trials["kind"] == "baseline") | front_mask(values, ["min", "max"]))
    controls = [int(number) for number in study.trials["trial"][wanted]]
    if not controls:
        raise InputError(
            f"study {one_line(study.name)} has no complete dense control to compare with: a baseline of "
            "sparsity.estimator dense; a new search with one among its baselines has"
        )
    if rule == "trial":
        chosen = _named(study, value)
    else:
        rows = trial_front(study) if rule == "front" else knee_of(study).to_frame().T
        chosen = [int(number) for number in rows["trial"]]
    chosen = [number for number in chosen if number not in set(study.trials["trial"][is_control])]
    if not chosen:
        others = ", ".join(map(str, study.trials["trial"][is_compared(study) & ~is_control])) or "none is complete"
        raise InputError(
            f"points: {one_line(points)} means dense trials alone, and controls run in any case; others: {others}"
        )
    return Chosen(chosen, controls)


def confirmed_runs(study: StudyResults) -> pd.DataFrame:
    """The runs of a study's confirmation, a row each; empty where it has none.

    Where they ran on several types of device, only those on the one of most controls, and what has failed.
    Columns: point (number of the trial that it repeats), seed, state, gpu_uuid (None without one), MEASURED.
    """
    columns = ["point", "seed", "state", "gpu_uuid", *MEASURED]
    path = confirmation_path(study.path)
    if not (path / "study.db").is_file():
        return pd.DataFrame(columns=columns)
    runs = load_study(path)
    runs = dataclasses.replace(runs, trials=runs.trials[is_compared(runs) | ~is_complete(runs)])
    plan = runs.study["confirm"]["runs"]
    trials = [int(number) for number in runs.trials["trial"]]
    return pd.DataFrame(
        {
            "point": [int(plan[number]["point"]) for number in trials],
            "seed": [int(plan[number]["seed"]) for number in trials],
            "state": runs.trials["state"].array,
            "gpu_uuid": runs.trials.get("gpu_uuid"),
            **{name: useful(runs, name).array for name in MEASURED},
        },
        columns=columns,
        index=runs.trials.index,
    )


def confirmed_points(study: StudyResults, runs: pd.DataFrame) -> pd.DataFrame:
    """Statistics of confirmed points, a row each, controls first, then by energy; runs: as of `confirmed_runs`.

    Columns: trial, estimator, role (control or point), seeds (complete runs), failed (runs), and `_mean`, `_se`,
    `_low`, `_high` of each of:

    - MEASURED: over the seeds.
    - lead_test_accuracy, lead_val_accuracy (points): the accuracy less that of dense training of equal kWh with the
      same seed, which lies on straight lines between that seed's dense controls (see `control_curve`, which passes
      over controls that a cheaper one beats, if only by luck: what bias that has is in favour of dense training).
    - vs_dense_...: the MEASURED less those of the full dense baseline with the same seed; that is the dense control
      of most epochs, of these the first, and `dense` names it.
    - kwh_change: kWh / kWh of the full dense baseline - 1: -0.2 saves a fifth.

    Also same_gpu: of the seeds with both, how many ran on the very GPU of their full dense baseline, NaN without GPUs;
    and verdict (empty for controls), by the test accuracy, or where there is none by the validation accuracy:

    - 'above', 'below': the whole interval of the lead is above or below 0.
    - 'undecided': it holds 0, or there are not two seeds.
    - 'no control': a lead beyond the dearest control, or a deficit below the cheapest: no dense run of that cost
      says whether dense training would do as well.
    """
    if runs.empty:
        return pd.DataFrame(columns=["trial", "estimator", "role", "seeds", "failed"])
    trials = study.trials.set_index("trial")
    names = dict(zip(study.trials["trial"], estimator(study), strict=True))
    control_numbers = set(study.trials["trial"][is_dense_control(study)])
    complete = runs[runs["state"] == "complete"]
    controls = complete[complete["point"].isin(control_numbers)]
    planned = trials["config.epochs"] if "config.epochs" in trials else pd.Series(0, index=trials.index)
    full = max(sorted(set(controls["point"])), key=lambda number: planned[number], default=None)
    dense = complete[complete["point"] == full].set_index("seed")
    rows: list[dict[str, Any]] = []
    for point, mine in runs.groupby("point"):
        own = complete[complete["point"] == point].set_index("seed")
        is_control = point in control_numbers
        row: dict[str, Any] = {
            "trial": point,
            "estimator": names.get(point, "unknown"),
            "role": "control" if is_control else "point",
            "seeds": len(own),
            "failed": int((mine["state"] == "failed").sum()),
            "dense": full,
        }
        values = {name: own[name] for name in MEASURED}
        nothing = pd.Series(dtype=float)
        leads = None if is_control else _leads(own, controls)
        values |= {f"lead_{name}": nothing if leads is None else leads[name] for name in ACCURACIES}
        others = {name: own[name] - dense[name] for name in MEASURED} if point != full else {}
        values |= {f"vs_dense_{name}": others.get(name, nothing) for name in MEASURED}
        values["kwh_change"] = own["kwh"] / dense["kwh"] - 1 if others else nothing
        for name, numbers in values.items():
            row |= {f"{name}_{key}": value for key, value in interval(numbers)._asdict().items() if key != "n"}
        rows.append({**row, "same_gpu": _same_gpu(own, dense), "verdict": "" if leads is None else _verdict(leads)})
    table = pd.DataFrame(rows)
    return table.sort_values(["role", "kwh_mean", "trial"]).reset_index(drop=True)


def write_confirmed(study: StudyResults) -> pd.DataFrame:
    """Writes confirmed.csv and confirmed.parquet into the study's directory, each in one step; the table."""
    points = confirmed_points(study, confirmed_runs(study))
    writers = {"csv": lambda file: points.to_csv(file, index=False), "parquet": lambda file: points.to_parquet(file)}
    for kind, writer in writers.items():
        write_atomic(_file(study, kind), writer)
    return points


def read_confirmed(study: StudyResults) -> pd.DataFrame:
    """What `write_confirmed` has written; empty where nothing was confirmed."""
    file = _file(study, "parquet")
    return pd.read_parquet(file) if file.is_file() else confirmed_points(study, pd.DataFrame())


def _file(study: StudyResults, kind: str) -> Path:
    return study.path / f"confirmed.{kind}"


def _named(study: StudyResults, names: str) -> list[int]:
    numbers, problems = [], []
    for name in names.split(","):
        try:
            numbers.append(int(by_id(study, name.strip())["trial"]))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return list(dict.fromkeys(numbers))


def _leads(own: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Of each seed [n seeds]: both accuracies less dense training's of equal kWh, and cheaper, dearer than any control.

    NaN for a seed without a control that has both numbers.
    """
    rows = []
    for seed, run in own.iterrows():
        row: dict[str, Any] = {"seed": seed, "cheaper": False, "dearer": False}
        for name in ACCURACIES:
            curve = control_curve(controls[controls["seed"] == seed][["kwh", name]])
            row[name] = run[name] - at_equal_cost(curve, run["kwh"]) if len(curve) else math.nan
            if len(curve):
                row["cheaper"] |= run["kwh"] < curve["kwh"].iloc[0]
                row["dearer"] |= run["kwh"] > curve["kwh"].iloc[-1]
        rows.append(row)
    return pd.DataFrame(rows, columns=["seed", "cheaper", "dearer", *ACCURACIES]).set_index("seed")


def _verdict(leads: pd.DataFrame) -> str:
    name = next((name for name in ACCURACIES if leads[name].notna().any()), ACCURACIES[0])
    lead = interval(leads[name])
    if not (lead.low > 0 or lead.high < 0):
        return "undecided"
    if lead.low > 0:
        return "no control" if leads["dearer"].any() else "above"
    return "no control" if leads["cheaper"].any() else "below"


def _same_gpu(own: pd.DataFrame, dense: pd.DataFrame) -> float:
    both = pd.DataFrame({"mine": own["gpu_uuid"], "dense": dense["gpu_uuid"]}).dropna()
    return float((both["mine"] == both["dense"]).sum()) if len(both) else math.nan
