"""batch_slice: grad_weight from a part of the batch; grad_input exact.

    grad_weight = N / n sum over samples s in W of grad_weight(s)

W is a window of n = ceil(p N) of the N samples, one of those that cover every sample equally often:
1/p equal slices where n divides N. The window is drawn at random and is another for each layer, one
further along. Unbiased: the mean over all windows is the dense gradient. Shapes: any layer, x [N, ...],
grad_output [N, ...]. Cost of a step: 2/3 + p/3. Source: column-row sampling over the samples (Adelman
et al., NeurIPS 2021), with contiguous slices of a shuffled batch in place of a gather.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor

from sbp_tune.sparsity.estimators._base import Estimator, Mode
from sbp_tune.sparsity.estimators.mask import kept_count
from sbp_tune.sparsity.layers import Layer
from sbp_tune.sparsity.parts import window, windows
from sbp_tune.sparsity.products import Gradients, Products


class BatchSlice(Estimator):
    """grad_weight from a window of the samples."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._place = {layer: place for place, layer in enumerate(self.layers)}
        self._drawn = 0.0

    def draw(self) -> None:
        self._drawn = self.random()

    def mode(self, layer: Layer) -> Mode:
        return Mode.SPARSE if self.keep_of(layer) < 1 else Mode.DENSE

    def variant(self, layer: Layer) -> str:
        return about(self.keep_of(layer))

    def backward(self, layer: Layer, products: Products) -> Gradients:
        return products.grad_input(), sliced_grad_weight(products, *self._window(layer, len(products.x)))

    def graph_key(self, samples: int) -> Hashable:
        return tuple(self._window(layer, samples) for layer in self.layers)

    def _window(self, layer: Layer, samples: int) -> tuple[int, int]:
        """Samples kept and the place of their window."""
        kept = kept_count(self.keep_of(layer), samples)
        count = windows(kept, samples)
        return kept, (int(self._drawn * count) + self._place[layer]) % count


def about(keep: float) -> str:
    """A fraction of the samples to the nearest sixteenth: under a schedule, not every p is timed anew."""
    return f"about {max(1, round(16 * keep))}/16 of the samples"


def sliced_grad_weight(products: Products, kept: int, place: int) -> Tensor | None:
    """Unbiased grad_weight from window `place` of `kept` samples."""
    samples = len(products.x)
    chosen = window(place, kept, samples)
    dy, x = chosen.take(products.grad_output, 0), chosen.take(products.x, 0)
    return products.scaled_grad_weight(samples / kept, dy, x)
