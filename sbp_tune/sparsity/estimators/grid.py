"""grid: grad_weight from every s-th output position; grad_input exact.

    grad_weight = s_1 s_2 sum over positions a = o (mod s) of grad_weight(a)

with a random offset o for each step and layer, and strides s_1 <= s_2 <= s_1 + 1 such that 1 / (s_1 s_2)
is nearest to p: 1, 1/2, 1/4, 1/6, 1/9, ... Unbiased: the mean over all offsets is the dense gradient.
Neighbouring positions are alike, so on smooth signals it adds less variance than `batch_slice`. Shapes:
grad_output [N, C_out, *positions]; a linear layer has no positions and stays dense. Cost of a step:
2/3 + p/3. Source: the grid of stochastic backpropagation (Cheng et al., CVPR 2022), here on grad_weight
alone and scaled, for any kernel size.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from torch import Tensor
from torch.nn import functional

from sbp_tune.sparsity.estimators._base import Estimator, Mode
from sbp_tune.sparsity.layers import Layer
from sbp_tune.sparsity.operators import Convolution
from sbp_tune.sparsity.products import Gradients, Products

Steps = tuple[int, ...]


class Grid(Estimator):
    """grad_weight from a grid of output positions."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._drawn: dict[Layer, tuple[float, float]] = {}

    def draw(self) -> None:
        numbers = iter(self.random_numbers(2 * len(self.layers)))
        self._drawn = {layer: (next(numbers), next(numbers)) for layer in self.layers}

    def mode(self, layer: Layer) -> Mode:
        is_convolution = isinstance(layer.operator, Convolution)
        return Mode.SPARSE if is_convolution and max(self._strides(layer)) > 1 else Mode.DENSE

    def variant(self, layer: Layer) -> str:
        return f"every {'x'.join(map(str, self._strides(layer)))} positions"

    def backward(self, layer: Layer, products: Products) -> Gradients:
        strides = clipped_strides(self._strides(layer), products.grad_output)
        drawn = (*(0.0,) * len(strides), *self._drawn[layer])[-len(strides) :]
        offsets = tuple(int(part * stride) for part, stride in zip(drawn, strides, strict=True))
        return products.grad_input(), grid_grad_weight(products, strides, offsets)

    def _strides(self, layer: Layer) -> Steps:
        return grid_strides(self.keep_of(layer), layer.weight.dim() - 2)


@lru_cache
def grid_strides(keep: float, dims: int) -> Steps:
    """Strides of the grid over `dims` dimensions of positions whose kept fraction is nearest to `keep`.

    Near-square over the last two dimensions, along the only one where there is one.
    """
    if dims < 1:
        return (1,)
    if dims == 1:
        return (max(1, round(1 / keep)),)
    sides = [(side, side + more) for side in range(1, 34) for more in (0, 1)]
    rows, columns = min(sides, key=lambda pair: abs(1 / (pair[0] * pair[1]) - keep))
    return (*(1,) * (dims - 2), rows, columns)


def clipped_strides(strides: Steps, grad_output: Tensor) -> Steps:
    """Strides no longer than the dimensions of positions, so that no offset is empty."""
    return tuple(min(pair) for pair in zip(strides, grad_output.shape[2:], strict=True))


def grid_grad_weight(products: Products, strides: Steps, offsets: Steps) -> Tensor | None:
    """Unbiased grad_weight from the positions `offsets` mod `strides`.

    A grid of a convolution's positions is a convolution of larger stride, on an input that begins
    where the first of them looks.
    """
    operator, x, dy = products.operator, products.x, products.grad_output
    assert isinstance(operator, Convolution)
    padding, scale = [], 1
    for dim, (stride, offset) in enumerate(zip(strides, offsets, strict=True)):
        dy = dy[(slice(None),) * (dim + 2) + (slice(offset, None, stride),)]
        x, pad = _from_first_position(x, dim, operator, products.weight, dy.shape[dim + 2], stride, offset)
        padding.append(pad)
        scale *= stride
    coarse = replace(
        operator,
        stride=tuple(own * stride for own, stride in zip(operator.stride, strides, strict=True)),
        padding=tuple(padding),
    )
    return products.scaled_grad_weight(scale, dy, x, coarse)


def _from_first_position(
    x: Tensor, dim: int, operator: Convolution, weight: Tensor, count: int, stride: int, offset: int
) -> tuple[Tensor, int]:
    """x along one dimension as `count` positions of the coarse convolution see it, and its padding there.

    A view wherever equal zeros on both sides will do; else a padded copy.
    """
    if stride == 1:
        return x, operator.padding[dim]
    step = operator.stride[dim] * stride
    reach = operator.dilation[dim] * (weight.shape[dim + 2] - 1) + 1
    first = operator.stride[dim] * offset - operator.padding[dim]
    needed = (count - 1) * step + reach
    size = x.shape[dim + 2]
    begin = min(max(first, 0), size)
    length = max(min(size, first + needed) - begin, 0)  # 0 where only padding is looked at
    zeros_before = min(max(-first, 0), needed)
    zeros_after = needed - zeros_before - length
    view = x.narrow(dim + 2, begin, length)
    if length and zeros_before >= zeros_after and length + 2 * zeros_before - needed < step:
        return view, zeros_before
    sides = [0, 0] * (x.dim() - 3 - dim) + [zeros_before, zeros_after]
    return functional.pad(view, sides), 0
