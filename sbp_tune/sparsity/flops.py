"""Executed FLOPs: counted where the products run, never derived from the keep fraction."""

from __future__ import annotations

import math
from collections import defaultdict

from torch import Tensor, nn


class FlopCounter:
    """Multiply-adds x 2 by layer and product (`forward`, `grad_input`, `grad_weight`)."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def add(self, layer: str, product: str, flops: int) -> None:
        self.counts[layer][product] += flops

    def merge(self, other: FlopCounter) -> None:
        """Adds the counts of another."""
        for layer, products in other.counts.items():
            for product, flops in products.items():
                self.add(layer, product, flops)

    @property
    def total(self) -> int:
        """FLOPs of all layers and products since the counter was made."""
        return sum(sum(products.values()) for products in self.counts.values())

    def state_dict(self) -> dict[str, dict[str, int]]:
        return {name: dict(products) for name, products in self.counts.items()}

    def load_state_dict(self, state: dict[str, dict[str, int]]) -> None:
        self.counts.clear()
        for name, products in state.items():
            self.counts[name].update(products)


def product_flops(output: Tensor, weight: Tensor) -> int:
    """FLOPs of any one product of a layer with this output (or gradient of it) and weight.

    Each output element is a dot product with one filter [C_in / groups, *kernel] or one row [in];
    forward, grad_input and grad_weight all cost the same.
    """
    return 2 * output.numel() * (weight.numel() // max(weight.shape[0], 1))


def filter_size(module: nn.Module) -> int:
    """Multiply-adds of one element: of the output, or of a transposed convolution's input.

    From the layer's settings, since reading a computed weight computes it (and moves a spectral norm on).
    """
    if isinstance(module, nn.Linear):
        return module.in_features
    assert isinstance(module, nn.modules.conv._ConvNd)
    channels = module.out_channels if module.transposed else module.in_channels
    return channels // module.groups * math.prod(module.kernel_size)
