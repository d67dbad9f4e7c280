"""An optimizer step on the selected part of some weights; the rest, and its optimizer state, do not move.

A zero gradient is not enough to hold a weight still: momentum, Adam and weight decay move it all the
same. So during `optimizer.step()` a partly selected parameter is replaced in its parameter group by
a compact one with the selected elements of weight, gradient and state. Nothing is copied for a range
of rows (they are views), and the optimizer works on less. This holds for any optimizer whose state
tensors have the shape of the parameter; other state (Adam's step count) is that of the whole parameter.
An exception in the middle of a step leaves the weights sound: the next step starts by cleaning up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sbp_tune.errors import SbpTuneError
from sbp_tune.sparsity.parts import Part


@dataclass(frozen=True)
class Rows:
    """Selected rows (dimension 0) of a weight."""

    part: Part

    def take(self, tensor: Tensor) -> Tensor:
        return self.part.take(tensor, 0)

    def put(self, tensor: Tensor, values: Tensor) -> None:
        self.part.put(tensor, 0, values)


@dataclass(frozen=True)
class Elements:
    """Selected elements of a weight: index tensor [k] into its elements in their order in memory.

    like: the tensor whose order that is.
    """

    index: Tensor
    like: Tensor

    def take(self, tensor: Tensor) -> Tensor:
        return in_memory_order(tensor, self.like).reshape(-1).index_select(0, self.index)

    def put(self, tensor: Tensor, values: Tensor) -> None:
        ordered = in_memory_order(tensor, self.like)
        flat = ordered.reshape(-1)
        flat.index_copy_(0, self.index, values)
        if flat.data_ptr() != tensor.data_ptr():  # laid out otherwise than `like`: flat is a copy
            ordered.copy_(flat.view(ordered.shape))


Selection = Rows | Elements


def in_memory_order(tensor: Tensor, like: Tensor) -> Tensor:
    """A view with the dimensions by falling stride of `like`: contiguous for any dense layout."""
    strides = like.stride()
    return tensor.permute(sorted(range(like.dim()), key=lambda dim: (-strides[dim], dim)))


@dataclass(frozen=True, eq=False)
class _Swap:
    """A compact parameter in the place of a whole one, in a parameter group of an optimizer."""

    optimizer: Optimizer
    parameters: list[Any]
    place: int
    whole: nn.Parameter
    compact: Tensor
    selection: Selection


class CompactStep:
    """Makes the next step of each optimizer act on selections of some parameters only."""

    def __init__(self) -> None:
        self._selected: dict[nn.Parameter, Selection] = {}
        self._swapped: list[_Swap] = []
        self._hooks: WeakKeyDictionary[Optimizer, list[RemovableHandle]] = WeakKeyDictionary()

    def select(self, optimizers: Iterable[Optimizer], selected: dict[nn.Parameter, Selection]) -> None:
        """Selections for the next step, in place of the last ones; a step that a scaler skips does nothing."""
        self._put_back(self._swapped)
        self._selected = dict(selected)
        for optimizer in optimizers:
            if selected and optimizer not in self._hooks:
                before: Callable[..., None] = self._before
                after: Callable[..., None] = self._after
                self._hooks[optimizer] = [
                    optimizer.register_step_pre_hook(before),
                    optimizer.register_step_post_hook(after),
                ]

    def remove(self) -> None:
        """Takes the hooks off the optimizers."""
        self._put_back(self._swapped)
        for hooks in self._hooks.values():
            for hook in hooks:
                hook.remove()
        self._hooks.clear()
        self._selected = {}

    @torch.no_grad()
    def _before(self, optimizer: Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for place, whole in enumerate(group["params"]):
                selection = self._selected.pop(whole, None)
                if selection is None or whole.grad is None:
                    continue
                state = optimizer.state.get(whole, {})
                _check(optimizer, state, whole)
                compact = selection.take(whole.detach()).requires_grad_()
                compact.grad = selection.take(whole.grad)
                optimizer.state[compact] = {
                    name: selection.take(value) if _like(value, whole) else value for name, value in state.items()
                }
                group["params"][place] = compact
                self._swapped.append(_Swap(optimizer, group["params"], place, whole, compact, selection))

    @torch.no_grad()
    def _after(self, optimizer: Optimizer, *_: Any) -> None:
        mine = [swap for swap in self._swapped if swap.optimizer is optimizer]
        stepped = [(swap, optimizer.state[swap.compact]) for swap in mine]
        self._put_back(mine)
        for swap, compact_state in stepped:
            _check(optimizer, compact_state, swap.compact)
            swap.selection.put(swap.whole.detach(), swap.compact.detach())
            state = optimizer.state[swap.whole]
            for name, value in compact_state.items():
                if not _like(value, swap.compact):
                    state[name] = value
                    continue
                if not _like(state.get(name), swap.whole):  # its first step
                    state[name] = torch.zeros_like(swap.whole, dtype=value.dtype)
                swap.selection.put(state[name], value)
        if any(whole in self._selected for group in optimizer.param_groups for whole in group["params"]):
            self._selected = {}
            raise SbpTuneError(
                "handle.before_step ran inside optimizer.step(closure): call backward and before_step before "
                "optimizer.step(), or set sparsity.state to zero_grad"
            )

    def _put_back(self, swaps: list[_Swap]) -> None:
        for swap in swaps:
            swap.parameters[swap.place] = swap.whole
            swap.optimizer.state.pop(swap.compact, None)
        self._swapped = [swap for swap in self._swapped if swap not in swaps]


def _like(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape and value.dim() > 0


def _check(optimizer: Optimizer, state: dict[str, Any], parameter: Tensor) -> None:
    """SbpTuneError for state that has no part for a part of the parameter."""
    for name, value in state.items():
        if isinstance(value, Tensor) and value.numel() > 1 and not _like(value, parameter):
            raise SbpTuneError(
                f"sparsity.state: freeze found {name} of shape {list(value.shape)} in {type(optimizer).__name__} for a "
                f"weight of shape {list(parameter.shape)}, which cannot step in part; allowed: zero_grad, or an "
                "optimizer whose state has the weight's shape"
            )
