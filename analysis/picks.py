"""Choosing one trial of a study: a table of rules, each a name, what it takes, what it means, and a function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.pareto import knee, trial_front
from analysis.text import one_line
from analysis.trials import is_candidate, is_compared, is_complete, is_dense_control, metric, useful
from sbp_tune.errors import InputError
from sbp_tune.study.results import StudyResults

_ID_LENGTH = 4
"""Characters that make the beginning of a Ray trial id: fewer might be a mistyped number."""

_AUGMENTATION = 1e-3
"""What the sum of all losses counts beside the worst one: enough to leave no dominated point, too little to choose."""


class Rule(NamedTuple):
    """One way to pick. usage: as it is typed, with an example value; choose: from the study and the value, a row."""

    usage: str
    help: str
    choose: Callable[[StudyResults, str], pd.Series]


def pick_trial(study: StudyResults, pick: str) -> pd.Series:
    """The row of `study.trials` that a rule of `RULES` picks, as `knee` or `max-drop=1.0`.

    Only complete trials that meet all constraints are picked, but for `trial=ID`, which may break them. Ties go to
    less kwh, then the lower number. NaN values are never picked. InputError, one line, says what is possible.
    """
    name, given, value = pick.partition("=")
    rule = RULES.get(name)
    if rule is None or ("=" in rule.usage) != bool(given):
        raise InputError(f"pick: found {one_line(pick)!r}; possible: {possible_picks()}")
    if not is_complete(study).any():
        counts = ", ".join(f"{count} {state}" for state, count in study.trials["state"].value_counts().items())
        raise InputError(f"study {one_line(study.name)} has no complete trial to pick ({counts or 'no trial at all'})")
    return rule.choose(study, value)


def possible_picks() -> str:
    """All rules on one line, as they are typed."""
    return ", ".join(rule.usage for rule in RULES.values())


def by_id(study: StudyResults, wanted: str) -> pd.Series:
    """The row of the complete trial of this number, this Ray trial id, or the one id that begins so."""
    trials = study.trials
    matching = trials["trial"].map(str) == wanted
    if "trial_id" in trials and not matching.any():
        ids = trials["trial_id"].astype(str)
        matching = ids == wanted
        if not matching.any() and len(wanted) >= _ID_LENGTH:
            matching = ids.str.startswith(wanted)
    if not matching.any():
        complete = ", ".join(map(str, trials["trial"][is_complete(study)])) or "none"
        raise InputError(f"trial={one_line(wanted)}: no such trial; complete trials: {complete}")
    if matching.sum() > 1:
        both = ", ".join(f"{row['trial']} ({row['trial_id']})" for _, row in trials[matching].iterrows())
        raise InputError(f"trial={one_line(wanted)}: the ids of several trials begin so: {one_line(both)}")
    row = trials[matching].iloc[0]
    if row["state"] != "complete":
        raise InputError(f"trial={one_line(wanted)}: this trial is {row['state']}; only a complete trial can be picked")
    return row


def knee_of(study: StudyResults) -> pd.Series:
    """The row of the knee of the front."""
    front, values = _front(study, "knee")
    return front.iloc[knee(values, list(study.objectives.values()))]


def _max_accuracy(study: StudyResults) -> pd.Series:
    accuracy = metric(study, "val_accuracy").where(is_candidate(study))
    return _cheapest(study, accuracy == accuracy.max(), f"max-accuracy: no {_trial(study)} has a val_accuracy")


def _min_energy(study: StudyResults) -> pd.Series:
    on_front = study.trials["trial"].isin(trial_front(study)["trial"])
    return _cheapest(study, on_front & metric(study, "kwh").notna(), "min-energy: no trial on the front has a kwh")


def _max_drop(study: StudyResults, value: str) -> pd.Series:
    points = _number(value)
    if not 0 <= points <= 100:
        raise InputError(f"max-drop: found {one_line(value)!r}; needs percentage points from 0 to 100, as max-drop=1.5")
    accuracy = metric(study, "val_accuracy").where(is_compared(study))
    control = accuracy.where(is_dense_control(study)).max()
    best, of_what = (accuracy.max(), "trial") if math.isnan(control) else (control, "dense control")
    possible = accuracy.where(is_candidate(study) & metric(study, "kwh").notna())
    if possible.isna().all():
        raise InputError(f"max-drop: no {_trial(study)} has a val_accuracy and a kwh")
    near = possible >= best - points / 100 - 1e-12  # 0.95 - 0.01 is a little more than 0.94
    least = _rounded_up(100 * (best - possible.max()))
    return _cheapest(
        study,
        near,
        f"max-drop={one_line(value)}: no {_trial(study)} comes so near to the best {of_what} ({100 * best:.2f} %); "
        f"possible: max-drop={least} and more",
    )


def _budget(study: StudyResults, value: str) -> pd.Series:
    budget = _number(value)
    if not 0 < budget < math.inf:
        raise InputError(f"budget: found {one_line(value)!r}; needs kWh above 0, as budget=0.3")
    accuracy = metric(study, "val_accuracy").where(is_candidate(study))
    kwh = useful(study, "kwh").where(accuracy.notna())
    if kwh.isna().all():
        raise InputError(f"budget: no {_trial(study)} has a val_accuracy and a kwh")
    affordable = accuracy.where(kwh <= budget * (1 + 1e-9))  # a number of 3 digits may be a hair less than it says
    return _cheapest(
        study,
        affordable.notna() & (affordable == affordable.max()),
        f"budget={one_line(value)}: no {_trial(study)} used so few kWh; "
        f"possible: budget={_rounded_up(kwh.min())} (trial {study.trials['trial'][kwh == kwh.min()].iloc[0]}) and more",
    )


def _weights(study: StudyResults, value: str) -> pd.Series:
    """The point of the front with the least augmented weighted Tchebycheff distance from the ideal point.

    Each objective's loss is scaled over the front: 0 at the ideal, 1 at the nadir. The distance is the largest of
    weight x loss, plus a thousandth of the sum of the losses, which leaves no dominated point. Not the weighted sum:
    that never picks a point in a dent of the front, whatever the weights. Source: Steuer and Choo 1983,
    doi:10.1007/BF02591870.
    """
    names = list(study.objectives)
    texts = value.split(",")
    weights = np.array([_number(text) for text in texts])
    if len(texts) != len(names) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        example = ",".join(["0.7", "0.3", *["0.1"] * (len(names) - 2)][: len(names)])
        raise InputError(
            f"weights: found {one_line(value)!r}; needs {len(names)} numbers from 0, not all 0, for "
            f"{', '.join(names)} in this order, as weights={example}"
        )
    front, values = _front(study, "weights")
    gains = values.to_numpy(float) * np.where([way == "max" for way in study.objectives.values()], 1, -1)
    span = np.ptp(gains, axis=0)
    losses = (gains.max(axis=0) - gains) / np.where(span > 0, span, 1)
    distance = (weights / weights.max() * losses).max(axis=1) + _AUGMENTATION * losses.sum(axis=1)
    nearest = pd.Series(distance <= distance.min() + 1e-9, index=front.index)
    return _cheapest(study, nearest.reindex(study.trials.index, fill_value=False), "weights: the front is empty")


RULES = {
    "knee": Rule("knee", "the point of the front that bulges furthest towards the ideal", lambda s, _: knee_of(s)),
    "max-accuracy": Rule("max-accuracy", "the highest val_accuracy", lambda s, _: _max_accuracy(s)),
    "min-energy": Rule("min-energy", "the least kWh on the front", lambda s, _: _min_energy(s)),
    "max-drop": Rule(
        "max-drop=1.0",
        "the least kWh at most so many percentage points of val_accuracy below the best dense control",
        _max_drop,
    ),
    "budget": Rule("budget=0.3", "the highest val_accuracy for at most so many kWh", _budget),
    "weights": Rule(
        "weights=0.7,0.3", "the point of the front nearest to the ideal, a weight for each objective", _weights
    ),
    "trial": Rule("trial=ID", "that trial, by its number, Ray id, or the beginning of one", by_id),
}


def _front(study: StudyResults, rule: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the front, at least one, and their objectives."""
    front = trial_front(study)
    if front.empty:
        raise InputError(f"{rule}: no {_trial(study)} has values for all of {', '.join(study.objectives)}")
    return front, pd.concat([useful(study, name)[front.index] for name in study.objectives], axis=1)


def _trial(study: StudyResults) -> str:
    met = " that meets all constraints" if not is_candidate(study).equals(is_compared(study, study.objectives)) else ""
    return f"complete trial{met}"


def _cheapest(study: StudyResults, candidates: pd.Series, if_none: str) -> pd.Series:
    if not candidates.any():
        raise InputError(if_none)
    kwh = useful(study, "kwh")[candidates]
    return study.trials.loc[kwh.sort_values(kind="stable").index[0]]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _rounded_up(value: float) -> str:
    """A positive number with 3 digits, no smaller than it is: what is said to be possible is."""
    if value <= 0:
        return "0"
    digit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / digit) * digit:.3g}"
