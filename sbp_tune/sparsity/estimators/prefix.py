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

from sbp_tune.sparsity.estimators._cut import GraphCut


class Prefix(GraphCut):
    """The layers below a depth run without a graph."""

    default_dense: ClassVar[tuple[str, ...]] = ("last",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._flops: dict[str, int] = {}
        self._order: list[str] = []

    def observes(self) -> bool:
        return not self._order

    def observe(self, flops: dict[str, int], order: list[str]) -> None:
        self._flops, self._order = dict(flops), list(order)

    def draw(self) -> None:
        may_be_cut = {layer.name for layer in self.layers}
        self.cut(modules_below(self.p, self._flops, self._order, may_be_cut))

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
