"""A Gaussian-process sampler that knows the study's space: what is conditional, ordered, noisy, in flight.

Optuna's GPSampler models only the parameters that all trials have; the others it draws at random. Here a point has
all parameters, those that mean nothing at one common value, so that the model cannot see what has no effect.
Choices among numbers (25, 50 or 100 epochs) are steps of one scale to it, other choices have no order.

Each objective has a model of its own (`surrogate`), so the expected gain in hypervolume beyond the front is a sum
over the boxes that make up what no point dominates,

    E[gain] = sum over boxes prod over objectives (EI(lower edge) - EI(upper edge)),

exact where Optuna samples it. The front is not what was measured: of many noisy trials the luckiest lie far out,
and would hide the points that are really better. It is drawn, several times, from what the models think the trials
are worth without noise, those in flight included, and the gain is the mean over the draws.

Sources: Daulton, Balandat, Bakshy 2021, arXiv:2105.08195 (NEHVI: the gain beyond fronts drawn without the noise);
Emmerich, Deutz, Klinkenberg 2011, doi:10.1109/CEC.2011.5949880 (the exact gain beyond one); Ament et al. 2023,
arXiv:2310.20708 (its logarithm).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna._gp.acqf import BaseAcquisitionFunc
from optuna._gp.gp import GPRegressor
from optuna._gp.optim_mixed import optimize_acqf_mixed
from optuna._gp.qmc import sample_from_normal_sobol
from optuna._hypervolume import get_non_dominated_box_bounds
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import StudyDirection
from optuna.study._multi_objective import _is_pareto_front
from optuna.trial import FrozenTrial, TrialState

from sbp_tune.study.encoding import Encoding
from sbp_tune.study.space import Space
from sbp_tune.study.surrogate import Surrogate, fitted, standardised

Array = NDArray[np.float64]
_SAMPLES = 8  # of what the trials so far are worth without noise
_STARTS = 6  # local searches for the best proposal


class ConditionalGPSampler(BaseSampler):
    """Proposes points of a study file's space.

    The first `startup_trials` are spread out (Sobol), not modelled; after `most_trials` TPE proposes, since the cost
    of a model grows with their cube.
    """

    def __init__(self, space: Space, seed: int, startup_trials: int = 10, most_trials: int = 150) -> None:
        self._encoding = Encoding(space)
        self._random = np.random.RandomState(seed)
        self._independent = TPESampler(seed=seed)
        self._startup_trials, self._most_trials = startup_trials, most_trials
        power_of_two = 1 << max(0, startup_trials - 1).bit_length()
        self._spread = self._encoding.numbers.sample_normalized_params(power_of_two, self._random)
        self._models: list[Surrogate] | None = None  # the last ones: where the next fit begins

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._encoding.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
        ended = [other for other in trials if other.state == TrialState.COMPLETE and self._encoding.has(other.params)]
        if len(ended) < self._startup_trials or not self._encoding.numbers.dim:
            return self._encoding.decoded(self._spread[trial.number % len(self._spread)])
        if len(ended) > self._most_trials:
            return {}
        running = [
            other
            for other in trials
            if other.state == TrialState.RUNNING and other.params and self._encoding.has(other.params)
        ]
        with torch.device("cpu"):
            return self._encoding.decoded(self._proposal(study, ended, running))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        self._random.seed()
        self._independent.reseed_rng()

    def _proposal(self, study: optuna.Study, ended: list[FrozenTrial], running: list[FrozenTrial]) -> Array:
        points = self._encoding.encoded([trial.params for trial in ended])
        signs = [1 if direction == StudyDirection.MAXIMIZE else -1 for direction in study.directions]
        values = np.array([trial.values for trial in ended]) * signs
        categorical = self._encoding.numbers.is_categorical
        before: Sequence[Surrogate | None] = self._models or [None] * len(signs)
        self._models = [
            Surrogate(points, column, categorical, old) for column, old in zip(values.T, before, strict=True)
        ]
        known, feasible = points, np.array([all(v <= 0 for v in trial.constraints.values()) for trial in ended])
        if running:
            known = np.vstack([points, self._encoding.encoded([trial.params for trial in running])])
            feasible = np.append(feasible, np.full(len(running), True))
        seed = int(self._random.randint(2**31))
        gain = ExpectedGain(self._models, known[feasible], self._encoding, self._limits(ended, points), seed)
        expected = np.stack([model.expected(known) for model in self._models], axis=1)
        front = _is_pareto_front(-expected, assume_unique_lexsorted=False) & feasible
        starts = known[front & self._encoding.is_inside(known)]
        self._random.shuffle(starts)
        return optimize_acqf_mixed(
            gain, warmstart_normalized_params_array=starts[: _STARTS // 2], n_local_search=_STARTS, rng=self._random
        )[0]

    def _limits(self, ended: list[FrozenTrial], points: Array) -> list[tuple[GPRegressor, float]]:
        """A model of each constraint's slack, and the value of it above which the constraint is met."""
        limits = []
        for key in sorted({key for trial in ended for key in trial.constraints}):
            has = np.array([key in trial.constraints for trial in ended])
            slack = -np.array([trial.constraints[key] for trial in ended if key in trial.constraints])
            values, mean, deviation = standardised(slack)
            limits.append((fitted(points[has], values, self._encoding.numbers.is_categorical, None), -mean / deviation))
        return limits


class ExpectedGain(BaseAcquisitionFunc):
    """Logarithm of the hypervolume that a point is expected to add to a front, times its chance to be feasible.

    models: one for each objective, to be maximised; known: rows [n, parameters] that are run or running; limits:
    models of constraints, each with the value above which it is met.
    """

    def __init__(
        self,
        models: Sequence[Surrogate],
        known: Array,
        encoding: Encoding,
        limits: Sequence[tuple[GPRegressor, float]] = (),
        seed: int = 0,
        samples: int = _SAMPLES,
    ) -> None:
        self._models, self._encoding, self._limits = models, encoding, limits
        self._lower = self._upper = torch.empty((0, 0, len(models)))
        if len(known):
            normal = sample_from_normal_sobol(len(known) * len(models), samples, seed).tensor_split(len(models), dim=1)
            imagined = [model.imagine(known, numbers) for model, numbers in zip(models, normal, strict=True)]
            boxes = [_boxes(values) for values in torch.stack(imagined, dim=-1).numpy()]
            most = max(len(lower) for lower, _ in boxes)
            # An empty box, from a corner to itself, makes all samples as many.
            lower = [np.vstack([low, *[low[:1]] * (most - len(low))]) for low, _ in boxes]
            upper = [np.vstack([up, *[low[:1]] * (most - len(up))]) for low, up in boxes]
            self._lower, self._upper = torch.from_numpy(np.stack(lower)), torch.from_numpy(np.stack(upper))
        super().__init__(np.mean([model.length_scales for model in models], axis=0), encoding.numbers)

    def eval_acqf(self, x: torch.Tensor) -> torch.Tensor:
        """Of rows [n, parameters], or of one row."""
        if x.ndim == 1:
            return self.eval_acqf(x[None])[0]
        x = self._encoding.projected(x)
        total = torch.zeros(x.shape[:-1], dtype=torch.float64)
        for limit, threshold in self._limits:
            mean, variance = limit.posterior(x)
            total = total + torch.special.log_ndtr((mean - threshold) / (variance + 1e-12).sqrt())
        if not len(self._lower):  # nothing feasible is known yet
            return total
        volumes = torch.zeros((len(x), *self._lower.shape[:2]), dtype=torch.float64)
        for model, lower, upper in zip(self._models, self._lower.unbind(-1), self._upper.unbind(-1), strict=True):
            is_open = torch.isinf(upper)
            edges = torch.cat([lower, torch.where(is_open, lower, upper)], dim=-1)
            beyond, further = model.log_improvement(x, edges).tensor_split(2, dim=-1)
            fall = torch.where(is_open, 1.0, (beyond - further).clamp(min=1e-12))
            volumes = volumes + beyond + torch.where(is_open, 0.0, torch.log(-torch.expm1(-fall)))
        return total + torch.logsumexp(volumes, dim=(-2, -1)) - math.log(len(self._lower))


def _boxes(values: Array) -> tuple[Array, Array]:
    """Lower and upper corners [boxes, m] of what lies above a reference point and under no point's dominance.

    The reference is a little worse than the worst value of each objective, so that both ends of the front may still
    grow; values that lie apart from all others (a run that diverged) do not count.
    """
    front = values[_is_pareto_front(-values, assume_unique_lexsorted=False)]
    if values.shape[1] == 1:
        return front[:1], np.full((1, 1), np.inf)
    low, high = np.quantile(values, [0.25, 0.75], axis=0)
    worst = np.minimum(np.maximum(values.min(axis=0), low - 3 * (high - low)), front.min(axis=0))
    lower, upper = get_non_dominated_box_bounds(-front, 0.1 * values.std(axis=0) - worst)
    return -upper, -lower
