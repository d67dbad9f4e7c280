"""A layer as one operator of a compiled graph: its products are chosen, run and counted when the graph runs.

`torch.compile` sees the shapes only. What the estimator selects, step by step, is no part of the graph,
so nothing is compiled anew for it. A weight that gets no gradient gets zeros here, for a graph cannot give
it one step and none the next; `before_step` takes them away again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from sbp_tune.sparsity.estimators._base import Mode
from sbp_tune.sparsity.products import Products

if TYPE_CHECKING:
    from sbp_tune.sparsity.forward import LayerForward

_layers: WeakValueDictionary[int, LayerForward] = WeakValueDictionary()
_keys = itertools.count()


def register(layer: LayerForward) -> int:
    """The number under which compiled graphs call the layer."""
    key = next(_keys)
    _layers[key] = layer
    return key


@torch.library.custom_op("sbp_tune::layer", mutates_args=())
def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, key: int) -> Tensor:
    layer = _layers[key]
    output = layer.operator.forward(x, weight, bias)
    layer.count_forward(output)
    return output


@_forward.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, key: int) -> Tensor:
    return _layers[key].operator.forward(x, weight, bias)


@torch.library.custom_op("sbp_tune::layer_backward", mutates_args=())
def _backward(
    grad_output: Tensor, x: Tensor, weight: Tensor, key: int, needs_input: bool, needs_weight: bool
) -> tuple[Tensor, Tensor]:
    layer = _layers[key]
    mode = layer.mode(x)
    products = Products(
        layer.operator, grad_output, x, weight, needs_input, needs_weight and mode is not Mode.FIXED_WEIGHT, layer.count
    )
    grad_input, grad_weight = layer.rule()(products) if mode is Mode.SPARSE else products.dense()
    if grad_weight is None and needs_weight:
        grad_weight = torch.zeros_like(weight)
    return _laid_out(grad_input, x), _laid_out(grad_weight, weight)


@_backward.register_fake
def _(
    grad_output: Tensor, x: Tensor, weight: Tensor, key: int, needs_input: bool, needs_weight: bool
) -> tuple[Tensor, Tensor]:
    return _laid_out(x if needs_input else None, x), _laid_out(weight if needs_weight else None, weight)


def _laid_out(tensor: Tensor | None, like: Tensor) -> Tensor:
    """The tensor in the layout that the compiler was promised, that of an `empty_like`; empty where there is none."""
    if tensor is None:
        return like.new_empty(0)
    target = torch.empty_like(like)
    return tensor if tensor.stride() == target.stride() and tensor is not like else target.copy_(tensor)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, ctx.key = inputs
    ctx.save_for_backward(x, weight)


def _gradients(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    needs_input, needs_weight, needs_bias, _ = ctx.needs_input_grad
    grad_input, grad_weight = _backward(grad_output, x, weight, ctx.key, needs_input, needs_weight)
    return (
        grad_input if needs_input else None,
        grad_weight if needs_weight else None,
        _layers[ctx.key].operator.grad_bias(grad_output) if needs_bias else None,
        None,
    )


_forward.register_autograd(_gradients, setup_context=_setup)
as_operator: Callable[..., Tensor] = _forward
"""The forward pass of x, weight and bias by the layer of that number."""
