"""An optimizer step on the selected part of some weights; the rest, and its optimizer state, do not move.

A zero gradient is not enough to hold a weight still: momentum, Adam and weight decay move it all the
same. So during `optimizer.step()` a partly selected parameter is replaced in its parameter group by
a compact one with the selected elements of weight, gradient and state. Nothing is copied for a range
of rows (they are views), and the optimizer works on less. This holds for any optimizer whose state
tensors have the shape of the parameter; other state (Adam's step count) is that of the whole parameter.
An exception in the middle of a step leaves the weights sound: the next step starts by cleaning up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

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


class CompactStep:
    """Makes the next step of an optimizer act on selections of some parameters only."""

    def __init__(self) -> None:
        self._selected: dict[nn.Parameter, Selection] = {}
        self._swapped: list[tuple[Optimizer, list[Any], int, nn.Parameter, Tensor]] = []
        self._hooked: list[tuple[Optimizer, list[Any]]] = []

    def select(self, optimizer: Optimizer, selected: dict[nn.Parameter, Selection]) -> None:
        """Selections for the next step, in place of the last ones; a step that a scaler skips does nothing."""
        self._clean_up()
        self._selected = selected
        if selected and not any(known is optimizer for known, _ in self._hooked):
            before: Callable[..., None] = self._before
            after: Callable[..., None] = self._after
            hooks = [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]
            self._hooked.append((optimizer, hooks))

    def remove(self) -> None:
        """Takes the hooks off the optimizers."""
        self._clean_up()
        for _, hooks in self._hooked:
            for hook in hooks:
                hook.remove()
        self._hooked.clear()
        self._selected = {}

    @torch.no_grad()
    def _before(self, optimizer: Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for place, parameter in enumerate(group["params"]):
                selection = self._selected.get(parameter)
                if selection is None or parameter.grad is None:
                    continue
                compact = selection.take(parameter.detach()).requires_grad_()
                compact.grad = selection.take(parameter.grad)
                state = optimizer.state.get(parameter, {})
                optimizer.state[compact] = {
                    name: selection.take(value) if _like(value, parameter) else value for name, value in state.items()
                }
                group["params"][place] = compact
                self._swapped.append((optimizer, group["params"], place, parameter, compact))

    @torch.no_grad()
    def _after(self, optimizer: Optimizer, *_: Any) -> None:
        for *_where, parameter, compact in self._swapped:
            selection = self._selected[parameter]
            selection.put(parameter.detach(), compact.detach())
            state = optimizer.state[parameter]
            for name, value in optimizer.state[compact].items():
                if not _like(value, compact):
                    state[name] = value
                    continue
                if not _like(state.get(name), parameter):  # its first step
                    state[name] = torch.zeros_like(parameter, dtype=value.dtype)
                selection.put(state[name], value)
        self._clean_up()
        self._selected = {}

    def _clean_up(self) -> None:
        for swapped_in, parameters, place, parameter, compact in self._swapped:
            parameters[place] = parameter
            swapped_in.state.pop(compact, None)
        self._swapped.clear()


def _like(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape and value.dim() > 0
