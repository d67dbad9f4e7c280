"""channel_topk: both products, or grad_weight alone, from the output channels of largest gradient.

K = the k channels (whole groups in a grouped convolution) of largest mean abs(grad_output) over samples
and positions, ranked anew in each backward pass; k = ceil(p_l C_out), rounded up to a multiple of `block`.
    grad_weight[c] exact for c in K, 0 elsewhere
    grad_input = sum over c in K of w[c]^T grad_output[c]; with `products: weights` exact
Biased; the rows outside K do not move. Layers with no channel to spare stay dense. Cost of a step:
1/3 + 2p/3 (both), 2/3 + p/3 (weights), and a gather, dear in channels-last: `channel_block` needs none.
Source: ssProp (arXiv:2408.12561), whose own setting is `products: both`; for linear layers meProp
(Sun et al., ICML 2017).
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from sbp_tune.sparsity.compact_step import Rows, Selection
from sbp_tune.sparsity.estimators._base import Estimator, Mode
from sbp_tune.sparsity.estimators._channels import channel_dim, channel_products
from sbp_tune.sparsity.estimators._norm_share import NormShare
from sbp_tune.sparsity.estimators.mask import kept_count
from sbp_tune.sparsity.layers import Layer
from sbp_tune.sparsity.parts import Part
from sbp_tune.sparsity.products import Gradients, Products


class ChannelTopk(Estimator):
    """Products from the output channels of largest gradient."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._kept: dict[Layer, list[Tensor]] = {}  # rows of each backward pass of this step
        self._norms = NormShare()

    def draw(self) -> None:
        self._kept = {}

    def mode(self, layer: Layer) -> Mode:
        kept, units = self._sizes(layer)
        return Mode.SPARSE if kept < units else Mode.DENSE

    def variant(self, layer: Layer) -> str:
        kept, units = self._sizes(layer)
        return f"{kept} of {units} channels or groups"

    def backward(self, layer: Layer, products: Products) -> Gradients:
        kept, units = self._sizes(layer)
        dy = products.grad_output
        others = [dim for dim in range(dy.dim()) if dim != channel_dim(products.operator) % dy.dim()]
        scores = torch.linalg.vector_norm(dy, 1, dim=others).view(units, -1).sum(1)
        top = scores.topk(kept, sorted=False)
        if self.config.schedule == "adaptive":
            self._norms.add(top.values.sum(), scores.sum())
        unit = layer.weight.shape[0] // units
        both = self.config.products == "both"
        gradients, rows = channel_products(products, Part(top.indices), unit, 1.0, both)
        assert isinstance(rows.index, Tensor)
        self._kept.setdefault(layer, []).append(rows.index)
        return gradients

    def graph_key(self, samples: int) -> Hashable | None:
        return None if self.config.schedule == "adaptive" else ()  # its norms are summed in memory of their own

    def notes(self) -> dict[Layer, list[Tensor]]:
        return dict(self._kept)

    def take_notes(self, notes: dict[Layer, list[Tensor]]) -> None:
        self._kept = dict(notes)

    def selected(self) -> dict[nn.Parameter, Selection]:
        found: dict[nn.Parameter, Selection] = {}
        for layer, rows in self._kept.items():
            assert isinstance(layer.weight, nn.Parameter)
            union = rows[0] if len(rows) == 1 else torch.cat(rows).unique()
            found[layer.weight] = Rows(Part(union))
        return found

    def norm_share(self) -> float | None:
        return self._norms.read()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "norms": self._norms.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._norms.load_state_dict(state["norms"])

    def _sizes(self, layer: Layer) -> tuple[int, int]:
        """Channels (or groups) kept and in all; a multiple of `block` channels is kept."""
        channels, block = layer.weight.shape[0], self.config.block
        units = layer.groups if layer.groups > 1 else channels
        wanted = math.ceil(kept_count(self.keep_of(layer), channels) / block) * block
        return min(units, math.ceil(wanted * units / channels)), units
