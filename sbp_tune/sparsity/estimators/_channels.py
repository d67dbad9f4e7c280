"""The products of a layer on some of its output channels."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from sbp_tune.sparsity.layers import Layer
from sbp_tune.sparsity.operators import Convolution, Linear, Operator
from sbp_tune.sparsity.parts import Part
from sbp_tune.sparsity.products import Gradients, Products


def channel_dim(operator: Operator | None) -> int:
    """Where the channels of grad_output lie: [N, C_out, *positions], or [N, *, out] of a linear layer."""
    return -1 if isinstance(operator, Linear) else 1


def unit_of(layer: Layer, block: int) -> int:
    """Output channels that are kept or left out together: a block, or the whole groups that fill one."""
    if layer.groups == 1:
        return block
    per_group = layer.weight.shape[0] // layer.groups
    return per_group * math.ceil(block / per_group)


def channel_products(products: Products, units: Part, unit: int, scale: float, both: bool) -> tuple[Gradients, Part]:
    """Gradients from some units of `unit` output channels, and those channels as rows of the weight.

    grad_weight: scale x the exact rows of these channels, zero elsewhere. grad_input: exact, or with
    `both` scale x the sum over these channels alone. With groups, x is cut to the groups' channels too.
    """
    operator, weight, dim = products.operator, products.weight, channel_dim(products.operator)
    channels = weight.shape[0]
    rows = units.times(unit, channels)
    dy, kept_weight = rows.take(products.grad_output, dim), rows.take(weight, 0)
    x, inputs = products.x, None
    if isinstance(operator, Convolution) and operator.groups > 1:
        per_group = channels // operator.groups
        inputs = units.times(unit // per_group * weight.shape[1], x.shape[1])
        x = inputs.take(x, 1)
        operator = replace(operator, groups=dy.shape[1] // per_group)
    grad_weight = products.grad_weight(dy, x, kept_weight, operator)
    if grad_weight is not None:
        grad_weight = rows.spread(_scaled(grad_weight, scale), 0, weight)
    if not both:
        return (products.grad_input(), grad_weight), rows
    grad_input = products.grad_input(dy, x, kept_weight, operator)
    if grad_input is not None:
        grad_input = _scaled(grad_input, scale)
        if inputs is not None:
            grad_input = inputs.spread(grad_input, 1, products.x)
    return (grad_input, grad_weight), rows


def _scaled(tensor: Tensor, scale: float) -> Tensor:
    return tensor if scale == 1 else tensor.mul_(scale)
