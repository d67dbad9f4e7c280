"""Which trials a page draws: all, or of a huge study those that matter and a fair sample of the others."""

from __future__ import annotations

import dataclasses

import numpy as np

from analysis.confirmed import read_confirmed
from analysis.controls import dense_curve
from analysis.pareto import trial_front
from analysis.recommendation import Recommendation
from analysis.trials import is_dense_control, useful
from sbp_tune.study.results import StudyResults

MOST_DRAWN = 1500
"""Trials of which a page draws points: a browser stays quick, and a page small, with so many."""


def drawn_trials(study: StudyResults, found: Recommendation | None, most: int = MOST_DRAWN) -> StudyResults:
    """The study with at most about so many trials, in order: the front, what was confirmed, the controls of the
    dense curve and the trial to take, all of them, and of the others a sample, the same one each time.
    """
    if len(study.trials) <= most:
        return study
    number = study.trials["trial"]
    on_curve = is_dense_control(study) & useful(study, "kwh").isin(dense_curve(study)["kwh"])
    kept = on_curve | study.trials.index.isin(trial_front(study).index) | number.isin(read_confirmed(study)["trial"])
    if found is not None:
        kept |= number == found.trial
    others = np.flatnonzero(~kept.to_numpy())
    sample = np.random.default_rng(0).choice(others, max(0, min(len(others), most - int(kept.sum()))), replace=False)
    places = np.sort(np.concatenate([np.flatnonzero(kept.to_numpy()), sample]))
    return dataclasses.replace(study, trials=study.trials.iloc[places])


def drawn_note(study: StudyResults, drawn: StudyResults) -> str:
    """What a reader must know of a sample; empty where all trials are drawn."""
    if drawn is study:
        return ""
    return (
        "The figures of points, and the sentences above those of searched values and FLOPs, are of "
        f"{len(drawn.trials)} of the {len(study.trials)} trials: the front, the controls of the dense curve, what was "
        "confirmed, and a random sample of the others. All else is of all trials."
    )
