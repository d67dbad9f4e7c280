"""Energies that nearly agree, for whom a difference within the measurement's noise must not decide."""

from __future__ import annotations

import math

_TIED = ("kwh", "co2_kg")  # objectives in which a small difference is noise


def tied(objective: str, value: float, ratio: float) -> float:
    """An energy rounded down to a power of 1 + ratio; another objective, or any at ratio 0, as it is."""
    if objective not in _TIED or ratio == 0 or value <= 0:
        return value
    step = math.log1p(ratio)
    return math.exp(step * math.floor(math.log(value) / step))
