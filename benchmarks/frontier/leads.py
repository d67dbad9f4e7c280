"""How far an arm lies above or below dense training of the same cost, and how sure that is."""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

import numpy as np
from scipy import stats

from benchmarks.frontier.jobs import Result


class Estimate(NamedTuple):
    """Mean over seeds with its 95 % interval by Student's t; accuracies in percentage points."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def verdict(self) -> str:
        return "above" if self.low > 0 else "below" if self.high < 0 else "undecided"


def estimate(values: list[float]) -> Estimate:
    """Of independent values; with one value the interval is everything."""
    mean, n = statistics.fmean(values), len(values)
    half = stats.t.ppf(0.975, n - 1) * statistics.stdev(values) / math.sqrt(n) if n > 1 else math.inf
    return Estimate(mean, mean - half, mean + half, n)


def lead(arm: dict[int, Result], controls: list[dict[int, Result]], axis: str) -> Estimate:
    """Test accuracy above the control's of the same cost (`tflop` or `seconds`), in points; seed by seed.

    Runs of one seed share initialisation and order of the data, so their difference varies less than they
    do. Controls that a cheaper one beats in the mean are left out: dense training may stop there.
    """
    means = [(_mean(runs, axis), _mean(runs, "test_accuracy"), runs) for runs in controls]
    front = sorted(
        (
            (cost, runs)
            for cost, accuracy, runs in means
            if not any(other < cost and reached >= accuracy for other, reached, _ in means)
        ),
        key=lambda point: point[0],
    )
    costs = [cost for cost, _ in front]  # of one config hardly differ between seeds but for the noise of the clock
    leads = []
    for seed, result in arm.items():
        dense = np.interp(_mean(arm, axis), costs, [_accuracy(runs[seed]) for _, runs in front])
        leads.append(100 * (_accuracy(result) - float(dense)))
    return estimate(leads)


def covered(arm: dict[int, Result], controls: list[dict[int, Result]], axis: str) -> bool:
    """Whether some control costs no more than the arm: else no dense run says what dense training would do."""
    return _mean(arm, axis) >= min(_mean(runs, axis) for runs in controls)


def _accuracy(result: Result) -> float:
    return result.test_accuracy or 0.0  # of a run that diverged


def _mean(runs: dict[int, Result], field: str) -> float:
    return statistics.fmean(float(getattr(result, field) or 0) for result in runs.values())
