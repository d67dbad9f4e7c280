"""Which trials a figure of curves draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.figures.style import MAX_LINES
from analysis.pareto import trial_front
from analysis.trials import is_dense_control, useful
from sbp_tune.errors import InputError
from sbp_tune.study.results import StudyResults


def chosen_trials(study: StudyResults, trials: Sequence[int] | None = None, controls: int = 0) -> pd.DataFrame:
    """Rows of `study.trials`: those named, or a spread over the front, and the most accurate dense controls.

    At most MAX_LINES where none are named, `controls` of them dense. InputError for a number that the study
    does not have.
    """
    table = study.trials
    if trials is not None:
        known = set(table["trial"])
        if unknown := [number for number in trials if number not in known]:
            possible = f"0 to {table['trial'].max()}" if known else "none"
            raise InputError(f"trials: found {', '.join(map(str, unknown))}; possible: {possible}")
        return (
            table.set_index("trial", drop=False)
            .loc[list(trials)]
            .set_index(pd.Index([table.index[table["trial"] == number][0] for number in trials]))
        )
    dense = is_dense_control(study)
    accuracy = useful(study, "val_accuracy")
    of_dense = table[dense].assign(_by=accuracy).sort_values("_by", ascending=False).index[:controls]
    front = trial_front(study).index
    front = front[~front.isin(table.index[dense])] if controls else front
    places = np.unique(np.linspace(0, len(front) - 1, min(len(front), MAX_LINES - len(of_dense))).round().astype(int))
    return table.loc[[*of_dense, *front[places]]]
