"""One objective as a Gaussian process knows it: its value at a point, and how much better it may be than another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from optuna._gp.gp import GPRegressor, fit_kernel_params
from optuna._gp.prior import DEFAULT_MINIMUM_NOISE_VAR, default_log_prior

Array = NDArray[np.float64]
_SPAN = 1e3  # of a cost, dearest to cheapest; what comes closer to 0 than that has outliers in its logarithm
_JITTER = 1e-6  # of the variance, added where a covariance must be inverted


def fitted(points: Array, values: Array, is_categorical: NDArray[np.bool_], before: GPRegressor | None) -> GPRegressor:
    """Optuna's Gaussian process of values of mean 0 and deviation 1: Matern 5/2, a length scale each, with noise."""
    return fit_kernel_params(
        points,
        values,
        is_categorical,
        default_log_prior,
        DEFAULT_MINIMUM_NOISE_VAR,
        deterministic_objective=False,
        gpr_cache=before,
    )


def standardised(values: Array) -> tuple[Array, float, float]:
    """Values of mean 0 and deviation 1; their mean and deviation."""
    mean, deviation = float(values.mean()), max(float(values.std()), 1e-10)
    return (values - mean) / deviation, mean, deviation


class Surrogate:
    """A Gaussian process of an objective [n] that is to be maximised, or of the logarithm of a cost.

    A positive objective to be minimised (kWh, seconds) comes here negative. Such costs are often products (epochs
    times the cost of one): then their logarithm is a sum, which a few trials tell more of. Whichever of the two
    models makes the values more likely is taken.
    """

    def __init__(
        self, points: Array, values: Array, is_categorical: NDArray[np.bool_], before: Surrogate | None = None
    ) -> None:
        self._fits: dict[bool, GPRegressor] = {}
        found: list[tuple[float, bool, float, float]] = []
        is_cost = (values < 0).all() and values.min() > _SPAN * values.max()
        for is_log in (False, True) if is_cost else (False,):
            scale, mean, deviation = standardised(np.log(-values) if is_log else values)
            model = fitted(points, scale, is_categorical, before._fits.get(is_log) if before else None)
            with torch.no_grad():
                likelihood = float(model.marginal_log_likelihood()) - len(values) * math.log(deviation)
            self._fits[is_log] = model
            found.append((likelihood - (np.log(-values).sum() if is_log else 0), is_log, mean, deviation))
        _, self.is_log, self._mean, self._deviation = max(found)
        self.model = self._fits[self.is_log]

    @property
    def length_scales(self) -> Array:
        """Of each parameter: along a long one, little changes."""
        return np.asarray(self.model.length_scales)

    def imagine(self, points: Array, normal: torch.Tensor) -> torch.Tensor:
        """Values [samples, n] without noise that points [n, parameters] may have, from normal numbers of that shape.

        From here on `log_improvement` asks what would be better if each of these samples were the truth.
        """
        model, self._known = self.model, torch.from_numpy(points)
        with torch.no_grad():
            mean, covariance = model.posterior(self._known, joint=True)
            jitter = _JITTER * torch.eye(len(points), dtype=torch.float64) * model.kernel_scale
            values = mean + normal @ torch.linalg.cholesky(covariance + 2 * jitter).T
            self._factor = torch.linalg.cholesky(model.kernel(self._known, self._known) + jitter)
            self._weights = torch.cholesky_solve(values.T, self._factor)
        values = values * self._deviation + self._mean
        return -values.exp() if self.is_log else values

    def expected(self, points: Array) -> Array:
        """Values [n] without their noise (of a logarithm, the median)."""
        with torch.no_grad():
            mean = self.model.posterior(torch.from_numpy(points))[0].numpy() * self._deviation + self._mean
        return -np.exp(mean) if self.is_log else mean

    def log_improvement(self, x: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
        """log E[max(0, value - threshold)] of points [n, parameters], by sample, for thresholds [samples, k]."""
        covariance = self.model.kernel(x, self._known)
        mean = (covariance @ self._weights) * self._deviation + self._mean
        known = torch.linalg.solve_triangular(self._factor, covariance.T, upper=False).square().sum(dim=0)
        deviation = (self.model.kernel_scale - known).clamp(min=1e-10).sqrt()[:, None, None] * self._deviation
        improvement = log_normal_improvement if self.is_log else normal_improvement
        return improvement(mean[:, :, None], deviation, thresholds)


def normal_improvement(mean: torch.Tensor, deviation: torch.Tensor, threshold: Any) -> torch.Tensor:
    """log E[max(0, y - threshold)] for normal y, with a gradient everywhere (Ament et al. 2023, equation 9).

    Each branch sees only what it can take: infinity times zero, in the gradient of the other one, is no number.
    """
    z = ((mean - threshold) / deviation).clamp(min=-1e4)  # below, the difference to 1 has no digits left
    near, far = z.clamp(min=-25), z.clamp(max=-25)
    plain = 0.5 * near * torch.special.erfc(-near / math.sqrt(2)) + (-0.5 * near**2).exp() / math.sqrt(2 * math.pi)
    tail = (1 + math.sqrt(math.pi / 2) * far * torch.special.erfcx(-far / math.sqrt(2))).log()
    tail = tail - 0.5 * far**2 - 0.5 * math.log(2 * math.pi)
    return torch.where(z > -25, plain.log(), tail) + deviation.log()


def log_normal_improvement(mean: torch.Tensor, deviation: torch.Tensor, threshold: Any) -> torch.Tensor:
    """log E[max(0, -exp(y) - threshold)] for normal y and thresholds below 0 (the formula of a put option)."""
    edge = torch.log(-threshold)
    z = ((edge - mean) / deviation).clamp(min=-1e3)
    below = torch.special.log_ndtr(z)
    gap = z * deviation - deviation**2 / 2 + below - torch.special.log_ndtr(z - deviation)
    return edge + below + torch.log(-torch.expm1(-gap.clamp(min=1e-14)))
