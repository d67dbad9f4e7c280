"""What every estimator is: a rule for the part of the backward pass that is computed."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from sbp_tune.config import SparsityConfig
from sbp_tune.sparsity.layers import Layer


class Estimator:
    """Dense unless a method is overridden.

    `keep` is the keep fraction of the present epoch, in (0, 1]. State that decides later gradients
    (masks, generators, running means) goes through `state_dict`, in tensors and plain values.
    """

    def __init__(self, layers: list[Layer], config: SparsityConfig) -> None:
        self.layers = layers
        self.config = config
        self.keep = 1.0

    def start_epoch(self, keep: float) -> None:
        self.keep = keep

    def before_step(self, optimizer: Optimizer) -> None:
        """Last look at the gradients before the optimizer uses them."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""

    def remove(self) -> None:
        """Undoes whatever the constructor did to the layers."""
