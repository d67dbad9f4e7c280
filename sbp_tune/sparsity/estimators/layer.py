"""layer: grad_weight of some layers only; the others' weights get none, and the optimizer skips them.

A layer is selected with probability (or frequency) pi_l:
    cyclic: evenly spaced, once in 1 / p_l draws, staggered over the layers; pi_l = p_l
    random: systematic sampling in random order, so that the number of layers hardly varies; pi_l = p_l
    norm: as random, with pi_l in proportion to the running norm of the gradient, the sum of all as of
        p_l, and no pi_l below `exploration` p_l
grad_input is exact. The other weights do not move (block coordinate descent); with `scaled`, selected
gradients are divided by pi_l: unbiased. Any layer, and what else `include` names: a bias or a
normalisation that is not selected does not move either, though its gradient is computed.
Cost of a step: 2/3 + p/3, and as much less of the optimizer. Source: LISA (Pan et al., NeurIPS 2024),
here by layer and with an exact grad_input.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, ClassVar, Literal

import torch
from torch.optim import Optimizer

from sbp_tune.sparsity import layers
from sbp_tune.sparsity.estimators._base import Estimator, Mode
from sbp_tune.sparsity.estimators._running_norm import RunningNorm
from sbp_tune.sparsity.products import Gradients, Products

_GOLDEN = 0.6180339887498949  # its multiples mod 1 spread evenly, however many layers there are


class Layer(Estimator):
    """grad_weight of a subset of the layers."""

    takes_parameters: ClassVar[bool] = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._credit = {layer.name: place * _GOLDEN % 1 for place, layer in enumerate(self.layers)}
        self._norms = RunningNorm()
        self._chosen: dict[str, float] = {layer.name: 1.0 for layer in self.layers}  # pi_l by name

    @property
    def steps_between_draws(self) -> int | Literal["epoch"]:
        return self.config.reselect_every

    def draw(self) -> None:
        if self.config.select == "cyclic":
            self._chosen = self._next_in_turn()
        else:
            fractions = [self.keep_of(layer) for layer in self.layers]
            if self.config.select == "norm":
                norms = [
                    self._norms.read(layer.name, 1)[0] if layer.weight.requires_grad else 0.0 for layer in self.layers
                ]
                fractions = shares(fractions, norms, self.config.exploration)
            self._chosen = self._systematic_sample(fractions)

    def mode(self, layer: layers.Layer) -> Mode:
        if layer.name not in self._chosen:
            return Mode.FIXED_WEIGHT
        return Mode.SPARSE if self._scaled and self._chosen[layer.name] < 1 else Mode.DENSE

    def is_timed(self, layer: layers.Layer) -> bool:
        return False  # a layer that is not selected costs less in any case

    def backward(self, layer: layers.Layer, products: Products) -> Gradients:
        grad_input, grad_weight = products.dense()
        if self._scaled and grad_weight is not None:
            grad_weight.div_(self._chosen[layer.name])
        return grad_input, grad_weight

    def graph_key(self, samples: int) -> Hashable:
        return tuple(self._chosen.items())

    def before_step(self, *optimizers: Optimizer) -> None:
        if self._scaled:
            for layer in self.layers:
                if layer.operator is None and layer.weight.grad is not None and layer.name in self._chosen:
                    layer.weight.grad.div_(self._chosen[layer.name])
        if self.config.select != "norm":
            return
        for layer in self.layers:
            gradient = layer.weight.grad
            if layer.name in self._chosen and gradient is not None:
                first = torch.zeros(1, dtype=torch.long, device=gradient.device)
                self._norms.update(layer.name, first, gradient.norm().reshape(1), 1)

    def state_dict(self) -> dict[str, Any]:
        own = {"credit": dict(self._credit), "chosen": dict(self._chosen), "norms": self._norms.state_dict()}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._credit = dict(state["credit"])
        self._chosen = dict(state["chosen"])
        self._norms.load_state_dict(state["norms"])

    @property
    def _scaled(self) -> bool:
        return self.config.scaled and self.config.select != "norm"

    def _next_in_turn(self) -> dict[str, float]:
        chosen = {}
        for layer in self.layers:
            credit = self._credit[layer.name] + self.keep_of(layer)
            if credit >= 1 - 1e-9:
                chosen[layer.name] = self.keep_of(layer)
                credit = max(credit - 1, 0.0)
            self._credit[layer.name] = credit
        return chosen

    def _systematic_sample(self, fractions: list[float]) -> dict[str, float]:
        """Each layer with exactly its probability; in all, the sum of them, rounded up or down."""
        order = torch.randperm(len(self.layers), generator=self.generator).tolist()
        at, chosen = self.random(), {}
        for place in order:
            end = at + fractions[place]
            if math.floor(end + 1e-9) > math.floor(at + 1e-9):
                chosen[self.layers[place].name] = fractions[place]
            at = end
        return chosen


def shares(fractions: list[float], norms: list[float], exploration: float) -> list[float]:
    """Probabilities in proportion to the norms, with the same sum as the fractions and at most 1 each.

    None is below exploration x its fraction; an infinite norm (never measured) gives 1 while the sum lasts.
    """
    floors = [exploration * fraction for fraction in fractions]
    finite = [norm for norm in norms if math.isfinite(norm)]
    greatest = max(finite, default=1.0) or 1.0
    weights = [norm if math.isfinite(norm) else 10 * greatest for norm in norms]
    low, high = 0.0, 1.0 / max(min(weight for weight in weights if weight > 0), 1e-30) if any(weights) else 1.0
    for _ in range(60):  # bisection: the sum grows with the factor
        middle = (low + high) / 2
        total = sum(min(1.0, max(floor, middle * weight)) for floor, weight in zip(floors, weights, strict=True))
        low, high = (middle, high) if total < sum(fractions) else (low, middle)
    return [min(1.0, max(floor, low * weight)) for floor, weight in zip(floors, weights, strict=True)]
