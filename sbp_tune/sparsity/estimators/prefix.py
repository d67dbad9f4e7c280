"""prefix: no backward pass below a depth.

The layers, in the order in which they run, are cut where the FLOPs from the cut on are nearest to the
fraction p of all; everything with parameters before the cut, normalisation too, runs without a graph:
neither product, no stored activation, no gradient. The last layer and excluded ones stay above the cut.
Biased: what lies below does not learn in this epoch (its running statistics still move). The first
step of a run is dense, to see the order. Cost of a step: 1/3 + 2p/3. Source: FreezeOut (Brock et al.,
2017); layer freezing in Composer.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from sbp_tune.sparsity.estimators._base import Estimator, Mode
from sbp_tune.sparsity.layers import Layer


class Prefix(Estimator):
    """The layers below a depth run without a graph."""

    default_dense: ClassVar[tuple[str, ...]] = ("last",)
    cuts_graph: ClassVar[bool] = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._flops: dict[str, int] = {}
        self._order: list[str] = []
        self._below: set[str] = set()
        self._parameters = {name: list(module.parameters()) for name, module in self.model.named_modules()}

    def observes(self) -> bool:
        return not self._order

    def observe(self, flops: dict[str, int], order: list[str]) -> None:
        self._flops, self._order = dict(flops), list(order)

    def draw(self) -> None:
        may_be_cut = {layer.name for layer in self.layers}
        self._below = modules_below(self.p, self._flops, self._order, may_be_cut)

    def mode(self, layer: Layer) -> Mode:
        return Mode.NO_GRAPH if layer.name in self._below else Mode.DENSE

    def runs_without_graph(self, name: str) -> bool:
        return name in self._below

    def skipped(self) -> list[Tensor]:
        return [parameter for name in self._below for parameter in self._parameters[name]]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "flops": dict(self._flops), "order": list(self._order)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._flops, self._order = dict(state["flops"]), list(state["order"])


def modules_below(p: float, flops: dict[str, int], order: list[str], may_be_cut: set[str]) -> set[str]:
    """Modules that run before the cut that keeps nearest to the fraction p of the FLOPs."""
    total = sum(flops.values())
    layers = [name for name in order if name in flops]
    best, above, distance = 0, total, total * (1 - p)
    for place, name in enumerate(layers):
        if name not in may_be_cut:
            break
        above -= flops[name]
        if abs(above - p * total) < distance:
            best, distance = place + 1, abs(above - p * total)
    return set(order[: order.index(layers[best])]) if best else set()
