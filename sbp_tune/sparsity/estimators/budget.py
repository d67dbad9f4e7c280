"""budget: each epoch the set of weights that matters most and fits a fraction rho of the time.

Times of grad_input and grad_weight of each layer are measured on the first batch, the optimizer's on the
first step (shared out by size). A set M of layers takes, with the layers in the order in which they run,
    T(M) = sum over l above the lowest of M of t_input(l) + sum over l in M of (t_weight(l) + t_optimizer(l))
and the set of greatest total importance with T(M) <= rho T(all) is found by dynamic programming over time
in 1/1000 of T(all). Importance of a layer: |g_l|^2, the first-order fall of the loss under a gradient step,
as a running mean over the dense first steps of the epochs. Weights outside M get no gradient; below the
lowest of M nothing flows back (see `prefix`). Biased. Cost of a step: 1/3 + 2 rho / 3.
Source: ElasticTrainer (Huang et al., MobiSys 2023), on measured PyTorch times.
"""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from sbp_tune.sparsity.estimators._base import Mode
from sbp_tune.sparsity.estimators._cut import GraphCut
from sbp_tune.sparsity.estimators._running_norm import RunningNorm
from sbp_tune.sparsity.layers import Layer
from sbp_tune.sparsity.products import Gradients, Products
from sbp_tune.sparsity.timing import least_seconds, synchronize

TICKS = 1000


class Cost(NamedTuple):
    """Seconds of a layer's products and of its weight's part of the optimizer step; its importance."""

    grad_input: float
    grad_weight: float
    optimizer: float
    importance: float


class Budget(GraphCut):
    """Weights chosen by dynamic programming over measured times."""

    default_dense: ClassVar[tuple[str, ...]] = ("last",)
    needs: ClassVar[Literal["products", "gradient", "nothing"]] = "products"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._times: dict[str, tuple[float, float]] = {}  # grad_input, grad_weight by layer
        self._optimizer_s: float | None = None
        self._importance = RunningNorm()
        self._flops: dict[str, int] = {}
        self._order: list[str] = []
        self._watching = True  # the first step of each epoch is dense
        self._undecided = False
        self._fixed: set[str] = set()

    def start_epoch(self) -> None:
        self._watching, self._undecided = True, False
        self._fixed = set()
        self.cut(set())

    def observes(self) -> bool:
        return not self._order

    def observe(self, flops: dict[str, int], order: list[str]) -> None:
        self._flops, self._order = dict(flops), list(order)

    def mode(self, layer: Layer) -> Mode:
        if self.p >= 1:
            return Mode.DENSE
        if self._watching:
            return Mode.DENSE if layer.name in self._times else Mode.SPARSE
        self._decide()
        mode = super().mode(layer)
        return Mode.FIXED_WEIGHT if mode is Mode.DENSE and layer.name in self._fixed else mode

    def is_timed(self, layer: Layer) -> bool:
        return False  # this measures the products itself

    def runs_without_graph(self, name: str) -> bool:
        self._decide()
        return super().runs_without_graph(name)

    def graph_key(self, samples: int) -> Hashable | None:
        if self._watching and self.p < 1:
            return None
        self._decide()
        return frozenset(self._fixed), super().graph_key(samples)

    def backward(self, layer: Layer, products: Products) -> Gradients:
        trial = products.uncounted()
        grad_input, grad_weight = least_seconds(trial.grad_input, trial.grad_weight, device=products.weight.device)
        self._times[layer.name] = (grad_input * products.needs_input, grad_weight)
        return products.dense()

    def before_step(self, *optimizers: Optimizer) -> None:
        if self.p >= 1 or not self._watching:
            return
        learning = {layer.name: layer.weight.grad for layer in self.layers if layer.weight.grad is not None}
        squares = {name: gradient.float().norm().square().reshape(1) for name, gradient in learning.items()}
        if squares and not torch.cat(list(squares.values())).isfinite().all():
            return  # a gradient scaler skips this step: the next is watched
        for name, square in squares.items():
            self._importance.update(name, torch.zeros(1, dtype=torch.long, device=square.device), square, 1)
        if self._optimizer_s is None:
            self._time_next_step(optimizers)
        self._watching, self._undecided = False, True

    def skipped(self) -> list[Tensor]:
        return super().skipped() + [layer.weight for layer in self.layers if layer.name in self._fixed]

    def state_dict(self) -> dict[str, Any]:
        own = {
            "times": dict(self._times),
            "optimizer_s": self._optimizer_s,
            "importance": self._importance.state_dict(),
            "flops": dict(self._flops),
            "order": list(self._order),
            "watching": self._watching,
            "undecided": self._undecided,
            "fixed": sorted(self._fixed),
            "below": sorted(self._without_graph),
        }
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._times = {name: (times[0], times[1]) for name, times in state["times"].items()}
        self._optimizer_s = state["optimizer_s"]
        self._importance.load_state_dict(state["importance"])
        self._flops, self._order = dict(state["flops"]), list(state["order"])
        self._watching, self._undecided, self._fixed = state["watching"], state["undecided"], set(state["fixed"])
        self.cut(set(state["below"]))

    def _decide(self) -> None:
        """Chooses once the dense step and its optimizer step are over."""
        if not self._undecided:
            return
        self._undecided = False
        sizes = {layer.name: layer.weight.numel() for layer in self.layers}
        per_element = (self._optimizer_s or 0.0) / max(sum(sizes.values()), 1)
        layers = [name for name in self._order if name in self._times]
        seen = {name: self._importance.read(name, 1)[0] for name in layers}  # inf: has no gradient, cannot learn
        costs = [
            Cost(*self._times[name], per_element * sizes[name], seen[name] if math.isfinite(seen[name]) else 0.0)
            for name in layers
        ]
        learns_always = [place for place, name in enumerate(self._order) if name in self._flops and name not in sizes]
        always = min(learns_always, default=len(self._order))
        reach = sum(self._order.index(name) < always for name in layers)
        chosen = {layers[place] for place in best_set(costs, self.p, reach)}
        self._fixed = set(layers) - chosen
        lowest = min([always, *(self._order.index(name) for name in chosen)])
        self.cut(set(self._order[:lowest]))

    def _time_next_step(self, optimizers: Sequence[Optimizer]) -> None:
        started: list[float] = []
        device = self.layers[0].weight.device if self.layers else torch.device("cpu")

        def before(*_: Any) -> None:
            synchronize(device)
            started.append(time.perf_counter())

        def after(optimizer: Optimizer, *_: Any) -> None:
            synchronize(device)
            self._optimizer_s = (self._optimizer_s or 0.0) + time.perf_counter() - started[-1]
            for hook in hooks.pop(optimizer):
                hook.remove()

        hooks = {
            each: [each.register_step_pre_hook(before), each.register_step_post_hook(after)] for each in optimizers
        }


def best_set(costs: list[Cost], rho: float, reach: int) -> list[int]:
    """Places of the layers of greatest total importance whose time is at most rho of all, in running order.

    costs: in the order in which the layers run. reach: gradients must flow back to the layer at this place
    in any case, since a layer there that is not in the list always learns; len(costs) where none is.
    Greatest over every lowest layer e of: importance of e and of a knapsack of the layers above it, in the
    time that grad_input of all those above leaves. O(layers x 1000).
    """
    total = sum(cost.grad_input + cost.grad_weight + cost.optimizer for cost in costs)
    if not costs or total <= 0:
        return list(range(len(costs)))
    tick = total / TICKS
    forced = sum(cost.grad_input for cost in costs[reach:])
    value = np.zeros(TICKS + 1)  # greatest importance of layers above e within so many ticks of weight time
    takes = np.zeros((len(costs), TICKS + 1), dtype=bool)
    best: tuple[float, int, int] = (-1.0, len(costs), 0)
    flow = 0.0  # grad_input of the layers above e
    for place in reversed(range(len(costs))):
        cost = costs[place]
        ticks = math.ceil((cost.grad_weight + cost.optimizer) / tick)
        left = math.floor((rho * total - max(flow, forced)) / tick + 1e-9) - ticks
        if left >= 0 and value[left] + cost.importance > best[0]:
            best = (float(value[left] + cost.importance), place, left)
        taken = np.full(TICKS + 1, -np.inf)
        if ticks <= TICKS:
            taken[ticks:] = value[: TICKS + 1 - ticks] + cost.importance
        takes[place] = taken > value
        value = np.maximum(value, taken)
        flow += cost.grad_input
    _, lowest, left = best
    chosen = [lowest] if lowest < len(costs) else []
    for place in range(lowest + 1, len(costs)):
        if takes[place, left]:
            chosen.append(place)
            cost = costs[place]
            left -= math.ceil((cost.grad_weight + cost.optimizer) / tick)
    return chosen
