"""Keep fraction p(t) over the training. A new schedule is one new entry in SCHEDULES and in the config.

t counts the epochs of the sparse phase from 0: what `warmup_dense` and `dense_tail` leave of the
planned epochs (the papers' hybrid). With `per: step`, t grows within an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from sbp_tune.config import SparsityConfig
from sbp_tune.errors import InputError


class Moment(NamedTuple):
    """A point of the sparse phase.

    t, last: epochs since its start, and t in its last epoch. previous, norm_share: keep fraction of
    the epoch before and the share of the gradient's norm that it kept; None where nothing was measured.
    """

    t: float
    last: float
    previous: float | None = None
    norm_share: float | None = None


def _constant(config: SparsityConfig, at: Moment) -> float:
    return config.p0


def _linear(config: SparsityConfig, at: Moment) -> float:
    k = (config.p0 - config.p_min) / max(at.last, 1) if config.k is None else config.k
    return max(config.p_min, config.p0 - k * at.t)


def _exponential(config: SparsityConfig, at: Moment) -> float:
    k = max(0.0, math.log(config.p0 / config.p_min)) / max(at.last, 1) if config.k is None else config.k
    return max(config.p_min, config.p0 * math.exp(-k * at.t))


def _cosine(config: SparsityConfig, at: Moment) -> float:
    return config.p_min + (config.p0 - config.p_min) * (1 + math.cos(math.pi * _progress(at))) / 2


def _step(config: SparsityConfig, at: Moment) -> float:
    passed = [epoch for epoch in config.steps if epoch <= at.t]
    return config.steps[max(passed)] if passed else config.p0


def _increasing(config: SparsityConfig, at: Moment) -> float:
    return config.p_min + (config.p0 - config.p_min) * _progress(at)


def _interleave(config: SparsityConfig, at: Moment) -> float:
    return 1.0 if int(at.t) % config.dense_every == config.dense_every - 1 else config.p0


def _adaptive(config: SparsityConfig, at: Moment) -> float:
    if at.previous is None or not at.norm_share:
        return config.p0
    return min(1.0, max(config.p_min, at.previous * config.norm_share / at.norm_share))


SCHEDULES: dict[str, Callable[[SparsityConfig, Moment], float]] = {
    "constant": _constant,
    "linear": _linear,
    "exponential": _exponential,
    "cosine": _cosine,
    "step": _step,
    "increasing": _increasing,
    "interleave": _interleave,
    "adaptive": _adaptive,
}


def keep_fraction(
    config: SparsityConfig,
    epoch: float,
    epochs: int | None = None,
    previous: float | None = None,
    norm_share: float | None = None,
) -> float:
    """Fraction kept at an epoch, in (0, 1]; epochs count from 0 and may be broken. Dense keeps everything.

    With T + 1 epochs in the sparse phase and t of them over:
    constant: p0; linear: max(p_min, p0 - k t); exponential: max(p_min, p0 exp(-k t)), k from p_min at
    t = T where it is not given (feature-ranked paper, equations 6 and 7, with the floor that 7 leaves out);
    cosine: p_min + (p0 - p_min) (1 + cos(pi t / T)) / 2; step: as listed; increasing: p_min + (p0 - p_min) t / T;
    interleave: p0, every m-th epoch dense; adaptive: p norm_share / (share that was kept).

    `variance` and `budget` pace themselves: 1 / (1 + tau), the fraction of independent samples whose
    added variance is tau, and rho. InputError where the planned epochs are needed and not given.
    """
    if config.estimator == "dense":
        return 1.0
    start, end = 0.0, math.inf
    if epochs is not None:
        start, end = math.floor(config.warmup_dense * epochs + 0.5), math.floor((1 - config.dense_tail) * epochs + 0.5)
    elif _needs_epochs(config):
        raise InputError(f"sparsity.schedule: {config.schedule} needs the planned epochs, or k and no dense phases")
    if not start <= epoch < end:
        return 1.0
    if config.estimator == "variance":
        return 1 / (1 + config.tau)
    if config.estimator == "budget":
        return config.rho
    return SCHEDULES[config.schedule](config, Moment(epoch - start, end - start - 1, previous, norm_share))


def _needs_epochs(config: SparsityConfig) -> bool:
    without_k = config.schedule in ("linear", "exponential") and config.k is None
    return without_k or config.schedule in ("cosine", "increasing") or config.warmup_dense + config.dense_tail > 0


def _progress(at: Moment) -> float:
    """t / T in [0, 1]; 1 in a phase of a single epoch."""
    return min(1.0, at.t / at.last) if at.last > 0 else 1.0
