"""Executed FLOPs: counted where the products run, never derived from the keep fraction."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sbp_tune.sparsity.layers import Layer


class FlopCounter:
    """Counts the multiply-adds x 2 of each layer's forward, grad_input and grad_weight in training.

    A product of the backward pass is counted when the gradient of the layer's output arrives, so a
    pass that never runs costs nothing here either. Forward passes without gradient are not training.
    """

    def __init__(self, layers: list[Layer]) -> None:
        self.counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._hooks: list[RemovableHandle] = [
            layer.module.register_forward_hook(self._forward_hook(layer.name)) for layer in layers
        ]

    @property
    def total(self) -> int:
        """FLOPs of all layers and products since the counter was made."""
        return sum(sum(products.values()) for products in self.counts.values())

    def remove(self) -> None:
        """Takes the hooks off the layers; the counts stay readable."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def state_dict(self) -> dict[str, dict[str, int]]:
        return {name: dict(products) for name, products in self.counts.items()}

    def load_state_dict(self, state: dict[str, dict[str, int]]) -> None:
        self.counts.clear()
        for name, products in state.items():
            self.counts[name].update(products)

    def _forward_hook(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not torch.is_grad_enabled():
                return
            flops = product_flops(module, output)
            counts = self.counts[name]
            counts["forward"] += flops
            if not output.requires_grad:
                return
            backward = [product for product, runs in _products_that_run(module, inputs[0]) if runs]

            def count_backward(_: Tensor) -> None:
                for product in backward:
                    counts[product] += flops

            output.register_hook(count_backward)

        return hook


def product_flops(module: nn.Module, output: Tensor) -> int:
    """FLOPs of one product of a layer; forward, grad_input and grad_weight all cost the same.

    Each output element is a dot product with one filter (convolution: C_in / groups x kernel
    elements) or one row (linear).
    """
    weight = module.weight
    assert isinstance(weight, Tensor)
    return 2 * output.numel() * (weight.numel() // weight.shape[0])


def _products_that_run(module: nn.Module, layer_input: Tensor) -> list[tuple[str, bool]]:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return [("grad_input", layer_input.requires_grad), ("grad_weight", weight.requires_grad)]
