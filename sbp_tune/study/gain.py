"""What further trials still bring: the hypervolume gained per kWh."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

_WORST = 2.0  # of a cost, times that of the first trial


class Gain:
    """The hypervolume of a study after each of its ended trials, and the kWh that they used.

    The reference point is fixed when the first trial has ended, so that gains early and late are in one measure:
    twice the first trial's costs, and 0 for what is maximised. The first trial is the dense baseline, which every
    other is compared with; what costs twice as much is no result. Costs are in units of the reference, so the
    hypervolume of accuracy against energy has no unit: 1 is all right for nothing.

    modes: max or min of each objective; first: the objectives of the first trial, costs above 0.
    """

    def __init__(self, modes: Sequence[str], first: Sequence[float]) -> None:
        pairs = list(zip(modes, first, strict=True))
        self._scale = np.array([-1.0 if mode == "max" else 1.0 / (_WORST * value) for mode, value in pairs])
        self._reference = np.array([0.0 if mode == "max" else 1.0 for mode in modes])
        self._front = np.empty((0, len(pairs)))
        self._volumes, self._kwh = [0.0], [0.0]

    def add(self, values: Sequence[float] | None, kwh: float) -> None:
        """Takes up a trial that has ended: its objectives if it is complete, else None, and what it used."""
        if values is not None:
            points = np.vstack([self._front, self._scale * np.asarray(values, dtype=float)])
            self._front = points[moocore.is_nondominated(points)]
        self._volumes.append(self._volume(self._front))
        self._kwh.append(self._kwh[-1] + kwh)

    def volume_of(self, values: NDArray[np.float64]) -> float:
        """Hypervolume of the objectives [n, m] of other trials, in the same measure."""
        return self._volume(self._scale * values)

    def _volume(self, points: NDArray[np.float64]) -> float:
        return float(moocore.hypervolume(points, ref=self._reference)) if len(points) else 0.0

    def per_kwh(self, trials: int) -> float | None:
        """Hypervolume gained over the last so many ended trials per kWh that they used.

        None before one more than these have ended, and where they used nothing.
        """
        if len(self._volumes) <= trials + 1:
            return None
        kwh = self._kwh[-1] - self._kwh[-1 - trials]
        return (self._volumes[-1] - self._volumes[-1 - trials]) / kwh if kwh > 0 else None
