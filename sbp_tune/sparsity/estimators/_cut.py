"""Estimators that run whole modules without a graph: no product, no stored activation, no gradient.

Any layer will do, also one whose weight is computed or shared. Parameters that a module with children
holds itself (a class token, a layer scale) keep what gradient still reaches them. A cut cannot be
compiled into a graph, so these break it at every module. With `torch.utils.checkpoint` they need
`use_reentrant=False`: a reentrant segment has a gradient only where its input has one.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar, Literal

from torch import Tensor

from sbp_tune.sparsity.estimators._base import Estimator, Mode
from sbp_tune.sparsity.layers import Layer


class GraphCut(Estimator):
    """Runs the modules without a graph whose names were last given to `cut`."""

    default_dense: ClassVar[tuple[str, ...]] = ()
    cuts_graph: ClassVar[bool] = True
    needs: ClassVar[Literal["products", "gradient", "nothing"]] = "nothing"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._holders: dict[Tensor, list[str]] = {}  # names of the modules that hold a parameter
        for name, module in self.model.named_modules():
            for parameter in module.parameters(recurse=False):
                self._holders.setdefault(parameter, []).append(name)
        self._without_graph: set[str] = set()
        self._skipped: list[Tensor] = []

    def cut(self, names: set[str]) -> None:
        """These modules run without a graph from now on."""
        if names == self._without_graph:
            return
        self._without_graph = names
        self._skipped = [
            parameter for parameter, holders in self._holders.items() if all(map(self._lies_in_cut, holders))
        ]

    def mode(self, layer: Layer) -> Mode:
        return Mode.NO_GRAPH if layer.name in self._without_graph else Mode.DENSE

    def runs_without_graph(self, name: str) -> bool:
        return name in self._without_graph

    def graph_key(self, samples: int) -> Hashable | None:
        return frozenset(self._without_graph)

    def skipped(self) -> list[Tensor]:
        """Not a parameter that a module with a graph holds too: it learns there."""
        return self._skipped

    def _lies_in_cut(self, name: str) -> bool:
        """Attention and computed weights have their parameters in modules below."""
        parts = name.split(".")
        return any(".".join(parts[:end]) in self._without_graph for end in range(1, len(parts) + 1))
