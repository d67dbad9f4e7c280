"""Never slower than dense: each layer's sparse backward pass is timed once, and kept only where it clearly wins."""

from __future__ import annotations

from sbp_tune.sparsity.estimators._base import Estimator
from sbp_tune.sparsity.layers import Layer
from sbp_tune.sparsity.products import Gradients, Products
from sbp_tune.sparsity.timing import least_seconds

OVERHEAD_S = 60e-6
"""What an autograd function in Python costs more than torch's own, forward and backward together."""

MARGIN = 0.9
"""A gain must be this clear: repeated products find their data in the cache, where a step's do not."""


class AutoDense:
    """Times of dense and sparse backward passes by layer and variant, on the layer's first real batch.

    They count from the next optimizer step on, so that within one a layer always runs alike: a recomputed
    forward pass (checkpointing) as the first, and the later parts of an accumulated gradient as the earlier.
    Decisions rest on time and so may differ from run to run where both ways take equally long; they
    are part of `state_dict`, so that a run that resumes keeps them.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.times: dict[str, tuple[float, float]] = {}
        self._fresh: dict[str, tuple[float, float]] = {}

    def settle(self) -> None:
        """A step is over: what it measured counts from now on."""
        self.times |= self._fresh
        self._fresh.clear()

    def prefers_dense(self, layer: Layer, variant: str) -> bool:
        """Whether the variant was timed and is not faster."""
        if not self.enabled:
            return False
        times = self.times.get(self._key(layer, variant))
        return times is not None and not self._wins(*times)

    def backward(self, layer: Layer, estimator: Estimator, variant: str, products: Products) -> Gradients:
        """The estimator's backward pass, after timing a variant that is new."""
        key = self._key(layer, variant)
        if self.enabled and key not in self.times and key not in self._fresh and estimator.is_timed(layer):
            trial = products.uncounted()
            dense, sparse = least_seconds(
                trial.dense, lambda: estimator.backward(layer, trial), device=products.weight.device
            )
            self._fresh[key] = (dense, sparse)
        return estimator.backward(layer, products)

    def reason(self, layer: Layer, variant: str) -> str | None:
        """Why the layer stays dense, None where it does not."""
        if not self.prefers_dense(layer, variant):
            return None
        dense, sparse = self.times[self._key(layer, variant)]
        return (
            f"not clearly faster: {1e3 * (sparse + OVERHEAD_S):.2f} ms sparse, {1e3 * dense:.2f} ms dense ({variant})"
        )

    @staticmethod
    def _wins(dense: float, sparse: float) -> bool:
        return sparse + OVERHEAD_S < MARGIN * dense

    @staticmethod
    def _key(layer: Layer, variant: str) -> str:
        return f"{layer.name}: {variant}"
