"""channel_block: grad_weight, or both products, from a contiguous block of output channels.

For a window B of channels (dimension 0 of the weight):
    grad_weight[c] = grad_weight[c] exactly for c in B, 0 elsewhere
    grad_input = exact, or with `products: both` the sum over c in B of w[c]^T grad_output[c]
B holds ceil(p_l U) of the U units of `block` channels (whole groups in a grouped convolution), and is
    cyclic: the next window in turn, all covered equally often
    random: any of these windows
    norm: that of the greatest running gradient norm; with probability `exploration` any
Rows outside B do not move (block coordinate descent). With `scaled`, both products are divided by the
kept fraction of the units: unbiased over the windows. Layers of fewer than two units stay dense.
Cost of a step: 2/3 + p/3 (weights), 1/3 + 2p/3 (both). Source: ssProp (arXiv:2408.12561), in
blocks that need no gather.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sbp_tune.sparsity.compact_step import Rows, Selection
from sbp_tune.sparsity.estimators._base import Estimator, Mode
from sbp_tune.sparsity.estimators._channels import channel_products, unit_of
from sbp_tune.sparsity.estimators._running_norm import RunningNorm
from sbp_tune.sparsity.estimators.mask import kept_count
from sbp_tune.sparsity.layers import Layer
from sbp_tune.sparsity.parts import Part, window, windows
from sbp_tune.sparsity.products import Gradients, Products


class ChannelBlock(Estimator):
    """Products from a block of neighbouring output channels."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._places = {layer.name: place for place, layer in enumerate(self.layers)}  # windows, staggered
        self._norms = RunningNorm()
        self._kept: dict[Layer, Part] = {}

    @property
    def steps_between_draws(self) -> int | Literal["epoch"]:
        return self.config.reselect_every

    def draw(self) -> None:
        self._kept = {}
        for layer in self.layers:
            self._places[layer.name] = self._next_place(layer)

    def mode(self, layer: Layer) -> Mode:
        kept, units = self._sizes(layer)
        return Mode.SPARSE if kept < units else Mode.DENSE

    def variant(self, layer: Layer) -> str:
        kept, units = self._sizes(layer)
        return f"{kept} of {units} blocks of channels"

    def backward(self, layer: Layer, products: Products) -> Gradients:
        kept, units = self._sizes(layer)
        scale = units / kept if self.config.scaled and self.config.select != "norm" else 1.0
        both = self.config.products == "both"
        gradients, rows = channel_products(
            products, self._window(layer), unit_of(layer, self.config.block), scale, both
        )
        self._kept[layer] = rows
        return gradients

    def graph_key(self, samples: int) -> Hashable:
        return tuple(self._places.values())

    def notes(self) -> dict[Layer, Part]:
        return dict(self._kept)

    def take_notes(self, notes: dict[Layer, Part]) -> None:
        self._kept = dict(notes)

    def before_step(self, *optimizers: Optimizer) -> None:
        if self.config.select != "norm":
            return
        for layer, rows in self._kept.items():
            if layer.weight.grad is not None:
                norms = rows.take(layer.weight.grad, 0).flatten(1).norm(dim=1)
                self._norms.update(layer.name, *self._by_unit(layer, norms))

    def selected(self) -> dict[nn.Parameter, Selection]:
        return {
            layer.weight: Rows(rows) for layer, rows in self._kept.items() if isinstance(layer.weight, nn.Parameter)
        }

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "places": dict(self._places), "norms": self._norms.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._places = dict(state["places"])
        self._norms.load_state_dict(state["norms"])

    def _sizes(self, layer: Layer) -> tuple[int, int]:
        """Units kept and units in all."""
        units = math.ceil(layer.weight.shape[0] / unit_of(layer, self.config.block))
        return kept_count(self.keep_of(layer), units), units

    def _window(self, layer: Layer) -> Part:
        return window(self._places[layer.name], *self._sizes(layer))

    def _next_place(self, layer: Layer) -> int:
        kept, units = self._sizes(layer)
        count = windows(kept, units)
        if self.config.select == "cyclic":
            return (self._places[layer.name] + 1) % count
        if self.config.select == "norm" and self.random() >= self.config.exploration:
            norms = self._norms.read(layer.name, units)
            sums = [sum(norms[u] for u in _members(window(place, kept, units))) for place in range(count)]
            return sums.index(max(sums))
        return int(self.random() * count)

    def _by_unit(self, layer: Layer, row_norms: Tensor) -> tuple[Tensor, Tensor, int]:
        """Places and norms of the kept units, from the norms of their rows, and the number of all units."""
        units = self._sizes(layer)[1]
        unit = unit_of(layer, self.config.block)
        places = torch.tensor(_members(self._window(layer)), device=row_norms.device)
        rows = self._window(layer).times(unit, layer.weight.shape[0])
        owner = torch.cat([torch.arange(start, stop) for start, stop in rows.index]) // unit
        sums = torch.zeros(units, device=row_norms.device)
        sums.index_add_(0, owner.to(row_norms.device), row_norms.float().square())
        return places, sums[places].sqrt(), units


def _members(part: Part) -> list[int]:
    assert not isinstance(part.index, Tensor)
    return [unit for start, stop in part.index for unit in range(start, stop)]
