"""What `sbp-tune confirm` found: the points of a study that ran again with fresh seeds."""

from __future__ import annotations

import pandas as pd

from sbp_tune.study.results import StudyResults


def confirmed_points(study: StudyResults) -> pd.DataFrame | None:
    """A row for each confirmed point; None where nothing was confirmed.

    Columns: trial (of the search), seeds, and for each metric that was recorded `<metric>_mean` and
    `<metric>_half_width`, that of the 95 % interval, NaN for a single seed.
    """
    file = study.path / "confirm" / "confirmed.csv"
    return pd.read_csv(file) if file.is_file() else None
