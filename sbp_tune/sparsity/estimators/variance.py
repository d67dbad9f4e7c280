"""variance: per layer, as little of grad_weight as adds at most tau times the gradient's own variance.

grad_input is exact, grad_weight that of `batch_slice` or `grid`, both unbiased, whichever computes less:
    own variance V = Q / (Q - 1) sum over j of |G_j - g / Q|^2, G_j = gradient of the j-th of Q = 8 slices of
        the batch: the variance that g = sum of G_j has because its samples are independent draws
    batch_slice of the fraction p adds (1/p - 1) V, so p = 1 / (1 + tau) is allowed whatever the data
    grid of stride s adds the mean over its offsets o of |s_1 s_2 G_o - g|^2, measured; the coarsest that adds
        at most tau V is allowed. On smooth signals that is far coarser.
Measured on one batch every `probe_every` steps, by layer. Unbiased. Cost of a step: 2/3 + mean p_l / 3, and
about six grad_weight products per probe. Source: the variance bound of VCAS (Wang et al., ICLR 2024),
on samplers that need no gather.
"""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from sbp_tune.sparsity.estimators._base import Estimator, Mode
from sbp_tune.sparsity.estimators.batch_slice import about, sliced_grad_weight
from sbp_tune.sparsity.estimators.grid import clipped_strides, grid_grad_weight
from sbp_tune.sparsity.estimators.mask import kept_count
from sbp_tune.sparsity.layers import Layer
from sbp_tune.sparsity.operators import Convolution
from sbp_tune.sparsity.parts import windows
from sbp_tune.sparsity.products import Gradients, Products

SLICES = 8
GRIDS = ((1, 2), (2, 2), (2, 3), (3, 3), (4, 4))
"""Candidate strides of convolutions in two dimensions, from fine to coarse."""


class Variance(Estimator):
    """Per-layer keep fractions from measured variances."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._strides: dict[str, tuple[int, ...]] = {}  # by layer: () for a slice of the batch
        self._steps = 0
        self._probing = False
        self._drawn: dict[Layer, tuple[float, float]] = {}

    def draw(self) -> None:
        self._probing = self.p < 1 and self._steps % self.config.probe_every == 0
        numbers = iter(self.random_numbers(2 * len(self.layers)))
        self._drawn = {layer: (next(numbers), next(numbers)) for layer in self.layers}

    def mode(self, layer: Layer) -> Mode:
        return Mode.SPARSE if self.p < 1 and layer.name in self.keep else Mode.DENSE

    def variant(self, layer: Layer) -> str:
        strides = self._strides.get(layer.name)
        return f"every {'x'.join(map(str, strides))} positions" if strides else about(self.p)

    def is_timed(self, layer: Layer) -> bool:
        return not self._probing

    def backward(self, layer: Layer, products: Products) -> Gradients:
        if self._probing:
            grad_input, grad_weight = products.dense()
            if grad_weight is not None:
                self._strides[layer.name] = _coarsest(products, grad_weight, self.config.tau, self.p)
            return grad_input, grad_weight
        strides, drawn = self._strides.get(layer.name), self._drawn[layer]
        if strides:
            strides = clipped_strides(strides, products.grad_output)
            offsets = tuple(int(part * stride) for part, stride in zip(drawn, strides, strict=True))
            return products.grad_input(), grid_grad_weight(products, strides, offsets)
        samples = len(products.x)
        kept = kept_count(self.p, samples)
        place = int(drawn[0] * windows(kept, samples))
        return products.grad_input(), sliced_grad_weight(products, kept, place)

    def before_step(self, *optimizers: Optimizer) -> None:
        self._steps += self.p < 1

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "strides": dict(self._strides), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._strides = {name: tuple(strides) for name, strides in state["strides"].items()}
        self._steps = state["steps"]


def own_variance(products: Products, gradient: Tensor) -> float:
    """V of the module's docstring, from slices of the batch that are equal where N is a multiple of 8."""
    samples = len(products.x)
    count = min(SLICES, samples)
    if count < 2:
        return 0.0
    total = 0.0
    for start, stop in itertools.pairwise(round(part * samples / count) for part in range(count + 1)):
        part = products.grad_weight(products.grad_output[start:stop], products.x[start:stop])
        assert part is not None
        total += float((part.float() - gradient.float() / count).square().sum())
    return total * count / (count - 1)


def grid_variance(products: Products, gradient: Tensor, strides: tuple[int, ...]) -> float:
    """Mean over all offsets of the squared distance of the grid's estimate from the gradient."""
    offsets = list(itertools.product(*map(range, strides)))
    total = 0.0
    for offset in offsets:
        estimate = grid_grad_weight(products, strides, offset)
        assert estimate is not None
        total += float((estimate.float() - gradient.float()).square().sum())
    return total / len(offsets)


def _coarsest(products: Products, gradient: Tensor, tau: float, slice_keep: float) -> tuple[int, ...]:
    """Strides of the coarsest grid allowed; () where a slice of the batch keeps no more."""
    if not isinstance(products.operator, Convolution) or len(products.operator.stride) != 2:
        return ()
    best: tuple[int, ...] = ()
    allowed = tau * own_variance(products, gradient)
    for strides in GRIDS:
        if clipped_strides(strides, products.grad_output) != strides:
            break
        if grid_variance(products, gradient, strides) > allowed:
            break
        best = strides
    return best if best and 1 / (best[0] * best[1]) < slice_keep else ()
