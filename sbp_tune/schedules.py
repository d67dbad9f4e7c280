"""Keep fraction p(t) over the epochs. A new schedule is one new entry in SCHEDULES and in the config."""

from __future__ import annotations

import math
from collections.abc import Callable

from sbp_tune.config import SparsityConfig


def _constant(config: SparsityConfig, epoch: int) -> float:
    return config.p0


def _linear(config: SparsityConfig, epoch: int) -> float:
    return max(config.p_min, config.p0 - config.k * epoch)


def _exponential(config: SparsityConfig, epoch: int) -> float:
    return max(config.p_min, config.p0 * math.exp(-config.k * epoch))


SCHEDULES: dict[str, Callable[[SparsityConfig, int], float]] = {
    "constant": _constant,
    "linear": _linear,
    "exponential": _exponential,
}


def keep_fraction(config: SparsityConfig, epoch: int) -> float:
    """Fraction kept in an epoch, in (0, 1]; epochs count from 0. Dense keeps everything.

    linear: max(p_min, p0 - k t); exponential: max(p_min, p0 exp(-k t)); constant: p0
    (feature-ranked paper, equations 6 and 7, with the floor that its equation 7 leaves out).
    """
    if config.estimator == "dense":
        return 1.0
    return SCHEDULES[config.schedule](config, epoch)
