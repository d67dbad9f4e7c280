"""mask: the published method. Saves no compute: the whole gradient is computed, then most is zeroed.

For each layer l with weight gradient g of n elements: keep the ceil(p n) elements largest by
abs(g), set the others to zero (sparse-backpropagation paper, Algorithm 1). Biases and normalisation
parameters stay dense (its section III). Biased. Cost of a step: 1 + selection.

Zeroed is not frozen: with momentum, Adam or weight decay a weight of zero gradient still moves.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from sbp_tune.sparsity.estimators._base import Estimator


class Mask(Estimator):
    """Zeroes all but the largest elements of each layer's weight gradient."""

    def before_step(self, optimizer: Optimizer) -> None:
        for layer in self.layers:
            gradient = layer.weight.grad
            if gradient is None:
                continue
            count = kept_count(self.keep, gradient.numel())
            if count < gradient.numel():
                gradient.mul_(largest(gradient.abs(), count))


def kept_count(keep: float, size: int) -> int:
    """ceil(keep x size), at least 1, unmoved by the rounding of the product (0.1 x 30 keeps 3, not 4)."""
    return min(size, max(1, math.ceil(keep * size - 1e-12 * size)))


def largest(scores: Tensor, count: int) -> Tensor:
    """Bool mask of exactly `count` largest elements, any shape; of equal ones the first in memory.

    NaN counts as large, so that a gradient scaler still finds what must be skipped; if the
    threshold itself is NaN, everything is kept.
    """
    flat = scores.flatten()
    threshold = _kth_largest(flat, count)
    kept = ~(flat < threshold)
    if scores.device.type == "cpu" and int(kept.sum()) == count:  # no ties: the usual case
        return kept.view(scores.shape)
    tied = flat == threshold
    surplus = kept.sum() - count  # stays on the device: no synchronisation
    first = tied.cumsum(0) <= tied.sum() - surplus
    return (kept & (first | ~tied)).view(scores.shape)


def _kth_largest(flat: Tensor, count: int) -> Tensor:
    """Value of the count-th largest element, by selection, not by sorting."""
    index = flat.numel() - count
    if flat.device.type == "cpu" and flat.dtype in (torch.float32, torch.float64):
        # numpy's vectorised introselect is about eight times faster than torch's kthvalue on a CPU
        return torch.from_numpy(np.partition(flat.detach().numpy(), index)[index : index + 1])
    return flat.kthvalue(index + 1).values
