"""The sparse backward pass of one layer: an autograd function into which an estimator plugs its rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sbp_tune.sparsity.flops import product_flops
from sbp_tune.sparsity.operators import Operator

Gradients = tuple[Tensor | None, Tensor | None]
Count = Callable[[str, int], None]


class Products:
    """The two products of one layer in one backward pass: run, and counted, when they are asked for.

    grad_output: [N, C_out, *positions] (linear: [N, *, out]); x, weight: as in the forward pass.
    needs_input, needs_weight: whether anybody wants the product's result at all.
    """

    def __init__(
        self,
        operator: Operator,
        grad_output: Tensor,
        x: Tensor,
        weight: Tensor,
        needs_input: bool,
        needs_weight: bool,
        count: Count,
    ) -> None:
        self.operator = operator
        self.grad_output, self.x, self.weight = grad_output, x, weight
        self.needs_input, self.needs_weight = needs_input, needs_weight
        self._count = count

    def dense(self) -> Gradients:
        """grad_input and grad_weight, everything computed."""
        return self._run(self.operator, self.grad_output, self.x, self.weight, self.needs_input, self.needs_weight)

    def grad_input(
        self,
        grad_output: Tensor | None = None,
        x: Tensor | None = None,
        weight: Tensor | None = None,
        operator: Operator | None = None,
    ) -> Tensor | None:
        """The product that goes to the layer below, of what is given in place of the whole."""
        return self._run(*self._or_whole(grad_output, x, weight, operator), self.needs_input, False)[0]

    def grad_weight(
        self,
        grad_output: Tensor | None = None,
        x: Tensor | None = None,
        weight: Tensor | None = None,
        operator: Operator | None = None,
    ) -> Tensor | None:
        """The product that goes to the optimizer, of what is given in place of the whole."""
        return self._run(*self._or_whole(grad_output, x, weight, operator), False, self.needs_weight)[1]

    def scaled_grad_weight(
        self, scale: float, grad_output: Tensor, x: Tensor, operator: Operator | None = None
    ) -> Tensor | None:
        """scale x grad_weight of a part. The smaller tensor is scaled: a late layer has more weights than gradients."""
        if grad_output.numel() < self.weight.numel():
            return self.grad_weight(grad_output * scale, x, operator=operator)
        gradient = self.grad_weight(grad_output, x, operator=operator)
        return None if gradient is None else gradient.mul_(scale)

    def uncounted(self) -> Products:
        """The same for a measurement, which is not training."""
        return Products(
            self.operator, self.grad_output, self.x, self.weight, self.needs_input, self.needs_weight, lambda *_: None
        )

    def _or_whole(
        self, grad_output: Tensor | None, x: Tensor | None, weight: Tensor | None, operator: Operator | None
    ) -> tuple[Operator, Tensor, Tensor, Tensor]:
        return (
            self.operator if operator is None else operator,
            self.grad_output if grad_output is None else grad_output,
            self.x if x is None else x,
            self.weight if weight is None else weight,
        )

    def _run(
        self, operator: Operator, dy: Tensor, x: Tensor, weight: Tensor, grad_input: bool, grad_weight: bool
    ) -> Gradients:
        if not (grad_input or grad_weight):
            return None, None
        flops = product_flops(dy, weight)
        if grad_input:
            self._count("grad_input", flops)
        if grad_weight:
            self._count("grad_weight", flops)
        return operator.backward(dy, x, weight, grad_input, grad_weight)


Rule = Callable[[Products], Gradients]


class SparseBackward(torch.autograd.Function):
    """A layer's exact forward, with a backward pass by a rule; None for a weight leaves its `.grad` alone.

    Not differentiable twice, and opaque to `torch.func` and to `torch.compile`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, operator: Operator, rule: Rule, count: Count
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.set_materialize_grads(False)
        ctx.operator, ctx.rule, ctx.count = operator, rule, count
        return operator.forward(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_output is None:
            return (None,) * 6
        x, weight = ctx.saved_tensors
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        products = Products(ctx.operator, grad_output, x, weight, needs_input, needs_weight, ctx.count)
        grad_input, grad_weight = ctx.rule(products)
        return grad_input, grad_weight, ctx.operator.grad_bias(grad_output) if needs_bias else None, None, None, None
