"""The handle that turns a model's dense backward pass into a sparse one, and back."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sbp_tune.config import SparsityConfig
from sbp_tune.errors import SbpTuneError
from sbp_tune.sparsity.allocation import layer_fractions
from sbp_tune.sparsity.auto_dense import AutoDense
from sbp_tune.sparsity.choice import choose
from sbp_tune.sparsity.compact_step import CompactStep
from sbp_tune.sparsity.estimators._base import Estimator
from sbp_tune.sparsity.flops import FlopCounter
from sbp_tune.sparsity.forward import LayerForward, ModuleForward, OpaqueForward, SwappedForward, check_untouched

Schedule = Callable[[float, int, float | None, float | None], float]
"""p at an epoch (from 0; broken with `per: step`) of so many planned ones, in (0, 1]. Third and fourth: p of
the epoch before, and the share of the gradient's norm that it kept; None where nothing was measured."""


class Counted(NamedTuple):
    """FLOPs of captured passes: all, and of one product of each layer that ran forwards."""

    flops: FlopCounter
    flops_of_layer: dict[str, int]


class SparsityHandle:
    """What a training loop calls: `start_epoch`, `before_step`, and `remove` at the end.

    keep_fraction: p of the present epoch or step, as scheduled.
    """

    def __init__(self, model: nn.Module, config: SparsityConfig, seed: int, schedule: Schedule) -> None:
        model = getattr(model, "_orig_mod", model)  # of torch.compile
        check_untouched(model)
        self.config = config
        self.schedule = schedule
        self.keep_fraction = 1.0
        self.flops = FlopCounter()
        self.auto_dense = AutoDense(config.auto_dense)
        kind = estimator_class(config.estimator)
        self.layers, self._sparse, self._excluded = choose(model, kind, config)
        self.estimator = kind(model, self._sparse, config, seed)
        self._compact_step = CompactStep()
        self._epoch, self._epochs, self._steps_per_epoch = 0, 1, 0
        self._step = 0  # optimizer steps in this epoch
        self._until_draw = -1  # optimizer steps that the selection still serves; -1: until the epoch ends
        self._previous: tuple[float, float | None] | None = None  # keep fraction and norm share of the last epoch
        self._flops_of_layer: dict[str, int] = {}
        self._order: dict[str, None] = {}
        self._ran: set[str] = set()  # since the last step
        self._ran_without_grad: set[str] = set()
        self._swapped = self._swap(model)

    def start_epoch(self, epoch: int, epochs: int, steps: int | None = None) -> None:
        """Sets the keep fraction of an epoch (from 0) of a training planned for `epochs`.

        steps: optimizer steps in the epoch, for `per: step`; without it, as many as in the last epoch
        (the first epoch then counts as one step).
        """
        if self._step:
            self._previous = (self.keep_fraction, self.estimator.norm_share())
        self._steps_per_epoch = steps or self._step
        self._epoch, self._epochs, self._step = epoch, epochs, 0
        self._set_keep_fraction()
        self.estimator.start_epoch()
        self._until_draw = 0

    def select(self, indices: Tensor, losses: Tensor | None = None) -> Tensor:
        """Positions [k] in the batch of the samples to train on, in ascending order; `sample` alone drops any.

        indices: [n], the samples' numbers in the data set. losses: [n], if the caller has computed them
        anew; else those that `record` has seen last.
        """
        return self.estimator.select(indices, losses)

    def record(self, indices: Tensor, losses: Tensor) -> None:
        """Keeps the losses [k] of the samples [k] just trained on, for later `select`s."""
        self.estimator.record(indices, losses)

    def before_step(self, *optimizers: Optimizer) -> None:
        """Call between `backward` (and, with a GradScaler, `unscale_`) and `optimizer.step`, once per step.

        optimizers: all that will step on the model's parameters. Does nothing after `remove`.
        """
        if not self._swapped:
            return
        self._check_checkpoints()
        self.auto_dense.settle()
        if self.estimator.observes() and self._flops_of_layer:
            self.estimator.observe(self._flops_of_layer, list(self._order))
        self.estimator.before_step(*optimizers)
        frozen = self.config.state == "freeze"
        for parameter in self.estimator.skipped():
            if frozen:
                parameter.grad = None
            elif parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._compact_step.select(optimizers, self.estimator.selected() if frozen else {})
        self._step += 1
        if self.config.per == "step":
            self._set_keep_fraction()
        if self._until_draw > 0:
            self._until_draw -= 1

    def graph_key(self, samples: int) -> Hashable | None:
        """Name of the coming step of a batch: beside the fractions, all that is decided on the host before it runs.

        Steps of one name run the same kernels, once the first is over. None where a step measures, or never repeats.
        """
        estimator = self.drawn()
        return None if estimator.observes() else estimator.graph_key(samples)

    @contextmanager
    def capturing(self) -> Iterator[Counted]:
        """Passes inside are captured and not run: what they would compute is counted apart, for `ran_again`."""
        own, counted = (self.flops, self._flops_of_layer), Counted(FlopCounter(), {})
        self.flops, self._flops_of_layer = counted
        try:
            yield counted
        finally:
            self.flops, self._flops_of_layer = own

    def ran_again(self, counted: Counted) -> None:
        """Captured passes have run."""
        self.flops.merge(counted.flops)
        self._flops_of_layer |= counted.flops_of_layer

    @property
    def executed_flops(self) -> int:
        """Multiply-adds x 2 of forward, grad_input and grad_weight that ran in training so far."""
        return self.flops.total

    @property
    def executed_flops_by_layer(self) -> dict[str, dict[str, int]]:
        """The same by layer name and product."""
        return self.flops.state_dict()

    @property
    def keep_fractions(self) -> dict[str, float]:
        """p_l of the present epoch by the names of the layers that may be sparse."""
        return dict(self.estimator.keep)

    @property
    def sparse_layers(self) -> tuple[str, ...]:
        """Names of the layers, and of other parameters included, that may be sparse, in order of registration."""
        return tuple(layer.name for layer in self._sparse)

    @property
    def flops_of_layer(self) -> dict[str, int]:
        """FLOPs of one product of each layer on the last batch; empty before the first."""
        return dict(self._flops_of_layer)

    @property
    def dense_layers(self) -> dict[str, str]:
        """Why each layer that stays dense does so, by name: its kind, the config, or its measured times."""
        reasons = dict(self._excluded)
        for layer in self._sparse:
            reason = self.auto_dense.reason(layer, self.estimator.variant(layer))
            if reason is not None:
                reasons[layer.name] = reason
        return reasons

    def state_dict(self) -> dict[str, Any]:
        """All that later gradients depend on, in tensors and plain values."""
        return {
            "flops": self.flops.state_dict(),
            "estimator": self.estimator.state_dict(),
            "times": dict(self.auto_dense.times),
            "flops_of_layer": dict(self._flops_of_layer),
            "order": list(self._order),
            "epoch": (self._epoch, self._epochs, self._steps_per_epoch),
            "step": self._step,
            "until_draw": self._until_draw,
            "keep_fraction": self.keep_fraction,
            "previous": self._previous,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken: between two epochs, or two steps of one (no `start_epoch` then)."""
        self.flops.load_state_dict(state["flops"])
        self.estimator.load_state_dict(state["estimator"])
        self.auto_dense.times = {key: (times[0], times[1]) for key, times in state["times"].items()}
        self._flops_of_layer = dict(state["flops_of_layer"])
        self._order = dict.fromkeys(state["order"])
        self._epoch, self._epochs, self._steps_per_epoch = state["epoch"]
        self._step, self._until_draw = state["step"], state["until_draw"]
        self.keep_fraction, self._previous = state["keep_fraction"], state["previous"]
        self._share_out()

    def remove(self) -> None:
        """Gives every module its forward back; the model is as it was. The counts stay readable."""
        for swapped in reversed(self._swapped):
            swapped.remove()
        self._swapped.clear()
        self._compact_step.remove()

    def drawn(self) -> Estimator:
        """The estimator, with a fresh selection once the last has served its steps or an epoch has begun.

        Drawn by the first layer that runs, not by the step before, which may have been the epoch's last.
        """
        if self._until_draw == 0:
            self.estimator.draw()
            every = self.estimator.steps_between_draws
            self._until_draw = -1 if every == "epoch" else every
        return self.estimator

    def ran(self, name: str, flops: int | None = None) -> None:
        """A module ran in training; `flops` of one product for a layer."""
        self._order.setdefault(name)
        self._ran.add(name)
        if flops is not None:
            self._flops_of_layer[name] = flops

    def ran_without_grad(self, name: str) -> None:
        """A module in training mode ran under `no_grad`, as in the first pass of a reentrant checkpoint."""
        self._order.setdefault(name)  # the second pass runs the segments backwards
        self._ran_without_grad.add(name)

    def _check_checkpoints(self) -> None:
        """A reentrant segment whose input has no gradient never runs its second pass: nothing in it would learn."""
        lost = [name for name in self._ran_without_grad - self._ran if not self.estimator.runs_without_graph(name)]
        self._ran.clear()
        self._ran_without_grad.clear()
        if lost and self.estimator.cuts_graph:
            raise SbpTuneError(
                f"sparsity.estimator: {self.config.estimator} cut the graph below {min(lost)}, and its checkpoint is "
                "reentrant, so that it has no gradient; use torch.utils.checkpoint with use_reentrant=False"
            )

    def _swap(self, model: nn.Module) -> list[SwappedForward]:
        may_be_sparse = {layer.name for layer in self._sparse}
        swapped: list[SwappedForward] = [
            (LayerForward if layer.operator else OpaqueForward)(layer, self, layer.name in may_be_sparse)
            for layer in self.layers
        ]
        if self.estimator.cuts_graph:
            layers = {layer.module for layer in self.layers}
            swapped += [
                ModuleForward(name, module, self)
                for name, module in model.named_modules()
                if module not in layers and _is_leaf_with_parameters(module)
            ]
        return swapped

    def _set_keep_fraction(self) -> None:
        epoch: float = self._epoch
        if self.config.per == "step" and self._steps_per_epoch:
            epoch += min(self._step, self._steps_per_epoch - 1) / self._steps_per_epoch
        self.keep_fraction = self.schedule(epoch, self._epochs, *(self._previous or (None, None)))
        self._share_out()

    def _share_out(self) -> None:
        flops = self._flops_of_layer or None
        names = [layer.name for layer in self._sparse]
        self.estimator.p = self.keep_fraction
        self.estimator.keep = layer_fractions(self.config, self.keep_fraction, names, flops)


def estimator_class(name: str) -> type[Estimator]:
    """The class whose file bears the config's name: `batch_slice` is BatchSlice in batch_slice.py."""
    module = import_module(f"sbp_tune.sparsity.estimators.{name}")
    kind: type[Estimator] = getattr(module, "".join(part.capitalize() for part in name.split("_")))
    return kind


def _is_leaf_with_parameters(module: nn.Module) -> bool:
    """Multi-head attention calls none of its children's forward, so it counts as one."""
    owns = next(iter(module.parameters(recurse=False)), None) is not None
    return owns and (next(module.children(), None) is None or isinstance(module, nn.MultiheadAttention))
