"""Whether sparse training beats dense training of the same energy: the comparison behind every claim."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.pareto import front_mask
from analysis.trials import estimator, is_compared, is_dense_control, useful
from sbp_tune.study.results import StudyResults


def dense_curve(study: StudyResults) -> pd.DataFrame:
    """The dense-control curve: columns kwh and val_accuracy [n points], by kwh ascending.

    The complete dense controls as a `control_curve`.
    """
    controls = pd.DataFrame({"kwh": useful(study, "kwh"), "val_accuracy": useful(study, "val_accuracy")})
    return control_curve(controls[is_dense_control(study)])


def control_curve(controls: pd.DataFrame) -> pd.DataFrame:
    """Runs of dense controls (columns kwh and an accuracy) as a curve [n points], by kwh ascending.

    Those that no other control dominates, to be joined by straight lines; if a dominated control cost more than
    all of these, the curve runs on level to its kwh. Controls with a NaN are left out. Empty without controls.
    """
    controls = controls.dropna()
    front = controls[front_mask(controls, ["min", "max"])].sort_values("kwh")
    end = controls.max().to_frame().T
    return pd.concat([front, end]).dropna().drop_duplicates("kwh").reset_index(drop=True)


def at_equal_cost(curve: pd.DataFrame, kwh: ArrayLike) -> NDArray[np.float64]:
    """Accuracy on a `control_curve` at so many kWh; beyond the cheapest or dearest control, that control's."""
    return np.asarray(np.interp(np.asarray(kwh, float), curve.iloc[:, 0], curve.iloc[:, 1]), np.float64)


def compare_with_dense(study: StudyResults) -> pd.DataFrame:
    """Each complete sparse trial against dense training of equal energy, one row each.

    Columns: trial, estimator, kwh, val_accuracy, dense_accuracy (the straight line between the dense
    controls at that kWh; beyond the cheapest or dearest control, that control's accuracy), lead
    (val_accuracy - dense_accuracy, a fraction) and verdict:

    - 'above': more accurate than the curve at equal energy, or no worse than the cheapest control for
      less energy. No dense control dominates such a point.
    - 'not above': on or below the curve.
    - 'no control': cheaper and worse than the cheapest control, or dearer and better than the dearest:
      no dense run of that cost says whether dense training would do as well. All trials, without controls.

    Trials without kwh or val_accuracy are left out.
    """
    trials = pd.DataFrame(
        {
            "trial": study.trials["trial"],
            "estimator": estimator(study),
            "kwh": useful(study, "kwh"),
            "val_accuracy": useful(study, "val_accuracy"),
        }
    )
    sparse = is_compared(study) & ~trials["estimator"].isin(["dense", "unknown"])
    trials = trials[sparse].dropna().reset_index(drop=True)
    curve = dense_curve(study)
    if curve.empty:
        return trials.assign(dense_accuracy=np.nan, lead=np.nan, verdict="no control")
    dense = at_equal_cost(curve, trials["kwh"])
    lead = trials["val_accuracy"] - dense
    cheaper = trials["kwh"] < curve["kwh"].iloc[0]
    dearer = trials["kwh"] > curve["kwh"].iloc[-1]
    no_control = (cheaper & (lead < 0)) | (dearer & (lead > 0))
    above = (lead > 1e-9) | (cheaper & (lead >= 0))  # rounding is no lead
    verdict = np.select([no_control, above], ["no control", "above"], default="not above")
    return trials.assign(dense_accuracy=dense, lead=lead, verdict=verdict)
