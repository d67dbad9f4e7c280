"""From a point of a study to a config file that trains it again."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from analysis.pareto import knee, trial_front
from analysis.text import one_line
from analysis.trials import is_complete, is_dense_control, metric, useful
from sbp_tune.config import check_config
from sbp_tune.errors import InputError
from sbp_tune.files import write_text_atomic, yaml_text
from sbp_tune.study.results import StudyResults
from sbp_tune.units import readable_metric

POSSIBLE_PICKS = "knee, max-accuracy, min-energy, max-drop=PP (percentage points), trial=ID"


def pick_trial(study: StudyResults, pick: str) -> pd.Series:
    """The row of `study.trials` that a rule picks among the complete trials.

    knee: the knee of the front (`analysis.pareto.knee`); max-accuracy: highest val_accuracy;
    min-energy: least kwh on the front; max-drop=PP: least kwh of the trials whose val_accuracy is at
    most PP percentage points below the best dense control (below the best trial, if there is no
    control); trial=ID: that trial number or Ray trial id. Ties go to less kwh, then the lower number.
    NaN values are never picked. InputError says what is possible.
    """
    rule, given, value = pick.partition("=")
    if rule == "trial" and given:
        return by_id(study, value)
    rules: dict[str, Callable[[StudyResults], pd.Series]] = {
        "knee": knee_of,
        "max-accuracy": _max_accuracy,
        "min-energy": _min_energy,
    }
    if rule == "max-drop" and given:
        points = _percentage_points(value)
        rules["max-drop"] = lambda study: _max_drop(study, points)
    elif rule not in rules or given:
        raise InputError(f"pick: found {one_line(pick)!r}; possible: {POSSIBLE_PICKS}")
    if not is_complete(study).any():
        counts = ", ".join(f"{count} {state}" for state, count in study.trials["state"].value_counts().items())
        raise InputError(f"study {one_line(study.name)} has no complete trial to pick ({counts or 'no trial at all'})")
    return rules[rule](study)


def export_config(study: StudyResults, pick: str, output: Path) -> Path:
    """Writes the whole config of a picked trial as YAML, under comments that say where it is from.

    An existing file is replaced, in one step. Returns `output`. InputError as `pick_trial`, or if the
    trial's config is not a TrainConfig.
    """
    row = pick_trial(study, pick)
    config = check_config(study.config_of(int(row["trial"])), source=f"{study.path}: trial {row['trial']}")
    comments = "".join(f"# {one_line(line)}\n" for line in _header(study, row, pick, output))
    write_text_atomic(output, comments + yaml_text(config.model_dump(mode="json")))
    return Path(output)


def _header(study: StudyResults, row: pd.Series, pick: str, output: Path) -> list[str]:
    def value(name: str) -> str:
        return readable_metric(name, float(useful(study, name)[study.trials["trial"] == row["trial"]].iloc[0]))

    return [
        f"sbp-tune train {output}",
        "",
        f"study: {study.name}",
        f"trial: {row['trial']} ({row.get('trial_id')}), picked by {pick}",
        f"val_accuracy: {value('val_accuracy')}",
        f"energy: {value('kwh')} ({value('kwh_measured_share')} measured), CO2eq {value('co2_kg')}",
        f"device: {row.get('device')}",
        *([study.simulation] if study.simulation else []),
        f"versions: {', '.join(f'{name} {version}' for name, version in study.versions.items())}",
        f"exported: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    ]


def by_id(study: StudyResults, wanted: str) -> pd.Series:
    """The row of the complete trial of this number or Ray trial id; InputError says which there are."""
    trials = study.trials
    matching = trials["trial"].map(str) == wanted
    if "trial_id" in trials:
        matching |= trials["trial_id"] == wanted
    if not matching.any():
        complete = ", ".join(map(str, trials["trial"][is_complete(study)])) or "none"
        raise InputError(f"trial={one_line(wanted)}: no such trial; complete trials: {complete}")
    row = trials[matching].iloc[0]
    if row["state"] != "complete":
        raise InputError(f"trial={one_line(wanted)}: this trial is {row['state']}; only a complete trial can be picked")
    return row


def knee_of(study: StudyResults) -> pd.Series:
    """The row of the knee of the front."""
    front = trial_front(study)
    values = pd.concat([useful(study, name)[front.index] for name in study.objectives], axis=1)
    if front.empty:
        raise InputError(f"knee: no complete trial has values for all of {', '.join(study.objectives)}")
    return front.iloc[knee(values, list(study.objectives.values()))]


def _max_accuracy(study: StudyResults) -> pd.Series:
    accuracy = metric(study, "val_accuracy").where(is_complete(study))
    return _cheapest(study, accuracy == accuracy.max(), "max-accuracy: no complete trial has a val_accuracy")


def _min_energy(study: StudyResults) -> pd.Series:
    on_front = study.trials["trial"].isin(trial_front(study)["trial"])
    return _cheapest(study, on_front & metric(study, "kwh").notna(), "min-energy: no trial on the front has a kwh")


def _max_drop(study: StudyResults, points: float) -> pd.Series:
    accuracy = metric(study, "val_accuracy").where(is_complete(study))
    control = accuracy.where(is_dense_control(study)).max()
    best = accuracy.max() if math.isnan(control) else control
    near = accuracy >= best - points / 100 - 1e-12  # 0.95 - 0.01 is a little more than 0.94
    return _cheapest(study, near & metric(study, "kwh").notna(), "max-drop: no such trial has a kwh")


def _percentage_points(text: str) -> float:
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 <= points <= 100:
        raise InputError(f"max-drop: found {one_line(text)!r}; needs percentage points from 0 to 100, as max-drop=1.5")
    return points


def _cheapest(study: StudyResults, candidates: pd.Series, if_none: str) -> pd.Series:
    if not candidates.any():
        raise InputError(if_none)
    kwh = useful(study, "kwh")[candidates]
    return study.trials.loc[kwh.sort_values(kind="stable").index[0]]
