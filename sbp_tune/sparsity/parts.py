"""A part of one dimension of a tensor, such as some channels or samples: taken out and put back."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """Elements of a dimension: ranges (start, stop), or distinct indices [k].

    A single range is taken as a view, contiguous where the tensor is: a gather in a channels-last
    tensor can cost more than the product it would save.
    """

    index: tuple[tuple[int, int], ...] | Tensor

    def take(self, tensor: Tensor, dim: int) -> Tensor:
        """The part of a tensor; a copy unless it is a single range."""
        if isinstance(self.index, Tensor):
            return tensor.index_select(dim, self.index)
        views = [tensor.narrow(dim, start, stop - start) for start, stop in self.index]
        return views[0] if len(views) == 1 else torch.cat(views, dim)

    def put(self, tensor: Tensor, dim: int, values: Tensor) -> None:
        """Writes values, of the shape that `take` gives, into the tensor; nothing where they are a view of it."""
        if isinstance(self.index, Tensor):
            tensor.index_copy_(dim, self.index, values)
            return
        done = 0
        for start, stop in self.index:
            target = tensor.narrow(dim, start, stop - start)
            if target.data_ptr() != values.data_ptr():
                target.copy_(values.narrow(dim, done, stop - start))
            done += stop - start

    def spread(self, values: Tensor, dim: int, like: Tensor) -> Tensor:
        """Zeros of `like`'s shape and layout, with the values in this part."""
        full = torch.zeros_like(like, dtype=values.dtype)
        self.put(full, dim, values)
        return full

    def times(self, length: int, limit: int) -> Part:
        """Each element as a block of `length` elements, of `limit` in all (the last block may be shorter)."""
        if isinstance(self.index, Tensor):
            inside = torch.arange(length, device=self.index.device)
            return Part((self.index[:, None] * length + inside).flatten()) if length > 1 else self
        return Part(tuple((start * length, min(stop * length, limit)) for start, stop in self.index))


def window(place: int, length: int, size: int) -> Part:
    """The `length` neighbours of `size` elements from place x length on, round the end where it is reached.

    Over the places 0 to `windows(length, size)` - 1, every element is covered equally often.
    """
    start = place * length % size
    stop = start + length
    return Part(((start, stop),) if stop <= size else ((start, size), (0, stop - size)))


def windows(length: int, size: int) -> int:
    """Number of different windows: size / length of them tile the dimension where it is a multiple."""
    return size // gcd(length, size)
