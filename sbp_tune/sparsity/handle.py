"""The handle that turns a model's dense backward pass into a sparse one, and back."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import nn
from torch.optim import Optimizer

from sbp_tune.config import SparsityConfig
from sbp_tune.schedules import keep_fraction
from sbp_tune.sparsity.estimators._base import Estimator
from sbp_tune.sparsity.flops import FlopCounter
from sbp_tune.sparsity.layers import Layer, sparsifiable_layers


def sparsify(model: nn.Module, config: SparsityConfig) -> SparsityHandle:
    """Attaches the estimator that the config names; the model's state_dict keys stay as they are."""
    return SparsityHandle(model, config)


class SparsityHandle:
    """What a training loop calls: `start_epoch`, `before_step`, and `remove` at the end."""

    def __init__(self, model: nn.Module, config: SparsityConfig) -> None:
        self.config = config
        self.keep_fraction = 1.0
        layers = sparsifiable_layers(model)
        self._flops = FlopCounter(layers)
        self._estimator = make_estimator(config, layers)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Sets the keep fraction of an epoch (from 0) of a training planned for `epochs`."""
        self.keep_fraction = keep_fraction(self.config, epoch)
        self._estimator.start_epoch(self.keep_fraction)

    def before_step(self, optimizer: Optimizer) -> None:
        """Call between `backward` (and, with a GradScaler, `unscale_`) and `optimizer.step`."""
        self._estimator.before_step(optimizer)

    @property
    def executed_flops(self) -> int:
        """Multiply-adds x 2 of forward, grad_input and grad_weight that ran in training so far."""
        return self._flops.total

    @property
    def executed_flops_by_layer(self) -> dict[str, dict[str, int]]:
        """The same by layer name and product."""
        return self._flops.state_dict()

    def state_dict(self) -> dict[str, Any]:
        return {"flops": self._flops.state_dict(), "estimator": self._estimator.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._flops.load_state_dict(state["flops"])
        self._estimator.load_state_dict(state["estimator"])

    def remove(self) -> None:
        """Takes every hook off; the model is as it was."""
        self._flops.remove()
        self._estimator.remove()


def make_estimator(config: SparsityConfig, layers: list[Layer]) -> Estimator:
    """The estimator whose file bears the config's name: `batch_slice` is BatchSlice in batch_slice.py."""
    module = import_module(f"sbp_tune.sparsity.estimators.{config.estimator}")
    class_name = "".join(part.capitalize() for part in config.estimator.split("_"))
    estimator: Estimator = getattr(module, class_name)(layers, config)
    return estimator
