"""Pareto fronts, hypervolume and the knee, on plain arrays and on studies.

Dominance and hypervolume are exact (moocore, in C). Arrays hold one point a row and one objective a
column; `directions` says 'max' or 'min' for each column.
"""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.trials import is_candidate, useful
from sbp_tune.errors import InputError
from sbp_tune.study.results import StudyResults


def front_mask(values: ArrayLike, directions: Sequence[str]) -> NDArray[np.bool_]:
    """Which points no other point dominates: bool [n] for values [n, m].

    A point dominates another if it is at least as good in every objective and better in one; equal
    points do not dominate each other, so duplicates on the front are all kept. A point with a NaN is
    never on the front and dominates nothing. InputError if directions do not fit the values.
    """
    points, maximise = _checked(values, directions)
    mask = np.asarray(~np.isnan(points).any(axis=1))
    mask[mask] = moocore.is_nondominated(points[mask], maximise=maximise, keep_weakly=True)
    return mask


def hypervolume(values: ArrayLike, directions: Sequence[str], reference: ArrayLike) -> float:
    """Volume that the points [n, m] dominate and that dominates the reference [m], in the objectives' units.

    Points with a NaN and points no better than the reference add nothing; no point at all gives 0.
    InputError if directions or reference do not fit the values.
    Source: Zitzler and Thiele 1999, doi:10.1109/4235.797969.
    """
    points, maximise = _checked(values, directions)
    corner = np.asarray(reference, dtype=float)
    if corner.shape != (points.shape[1],) or np.isnan(corner).any():
        raise InputError(f"reference: found {corner.tolist()}; needs {points.shape[1]} numbers, one per objective")
    points = points[~np.isnan(points).any(axis=1)]
    return float(moocore.hypervolume(points, ref=corner, maximise=maximise)) if len(points) else 0.0


def knee(values: ArrayLike, directions: Sequence[str]) -> int:
    """Row of the front's values [n, m] that bulges furthest towards the ideal point.

    Each objective is scaled to [0, 1] over the front, 1 being best; the knee has the largest distance
    from the chord between the extreme points, on the side of the ideal point. With two objectives that
    chord is g1 + g2 = 1, so the distance grows with g1 + g2; more objectives use the plane in its place.
    Ties (a straight front, one or two points) go to the best first objective, then to the first row.
    InputError for an empty front or a NaN. Source: Das 1999, doi:10.1007/BF01195985.
    """
    points, maximise = _checked(values, directions)
    if not len(points) or np.isnan(points).any():
        raise InputError(f"knee: found {len(points)} points; needs at least one, and no NaN among them")
    gains = np.where(maximise, points, -points)
    span = np.ptp(gains, axis=0)
    bulge = ((gains - gains.min(axis=0)) / np.where(span > 0, span, 1)).sum(axis=1)
    furthest = np.flatnonzero(bulge >= bulge.max() - 1e-9)  # rounding must not choose on a straight front
    return int(furthest[np.argmax(gains[furthest, 0])])


def trial_front(study: StudyResults) -> pd.DataFrame:
    """Rows of `study.trials` on the Pareto front of the study's objectives, by the last objective ascending.

    Only complete trials that meet all constraints can be on it, with a value for every objective, baselines included;
    equal points are all kept, in the order of the table. Empty if there is none.
    """
    cost = useful(study, list(study.objectives)[-1])[front_mask(_objective_values(study), _directions(study))]
    return study.trials.loc[cost.sort_values(kind="stable").index]


def study_hypervolume(study: StudyResults, reference: Sequence[float] | None = None) -> float:
    """Hypervolume of the trials that may be on the front, in the product of the objectives' units; 0 if there are none.

    The default reference is, for each objective, the worst value of any of these trials plus 10 % of their
    range. It moves as trials are added: to compare studies, give one reference.
    """
    points = _objective_values(study)
    points = points[~np.isnan(points).any(axis=1)]
    if not len(points):
        return 0.0
    directions = _directions(study)
    if reference is None:
        maximise = np.array([direction == "max" for direction in directions])
        margin = 0.1 * np.ptp(points, axis=0)
        reference = np.where(maximise, points.min(axis=0) - margin, points.max(axis=0) + margin).tolist()
    return hypervolume(points, directions, reference)


def _objective_values(study: StudyResults) -> NDArray[np.float64]:
    """Objectives [n trials, m] of the trials that may be on a front; NaN for all others."""
    values = pd.concat([useful(study, name) for name in study.objectives], axis=1)
    return values.where(is_candidate(study)).to_numpy(dtype=float)


def _directions(study: StudyResults) -> list[str]:
    return list(study.objectives.values())


def _checked(values: ArrayLike, directions: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    points = np.asarray(values, dtype=float)
    wrong = [direction for direction in directions if direction not in ("max", "min")]
    if wrong or not directions:
        raise InputError(f"directions: found {list(directions)}; needs 'max' or 'min' for each objective")
    if points.size == 0:
        points = points.reshape(0, len(directions))
    if points.ndim != 2 or points.shape[1] != len(directions):
        raise InputError(f"values: found shape {points.shape}; needs [points, {len(directions)} objectives]")
    return points, np.array([direction == "max" for direction in directions])
