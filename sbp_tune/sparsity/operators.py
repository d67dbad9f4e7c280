"""A convolution's and a linear layer's forward, grad_input and grad_weight, each computable alone.

All on `aten.convolution_backward`, whose output_mask skips either product on every backend; but for the grad_weight
of a convolution from few positions on a CPU, where oneDNN's kernels spend their time on the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Convolution:
    """y[n, c, a] = sum over i, u of w[c, i, u] x[n, i, stride a + dilation u - padding], in any number of dimensions.

    x: [N, C_in, *space]; w: [C_out, C_in / groups, *kernel]; y and grad_output: [N, C_out, *positions].
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        no_output_padding = [0] * len(self.stride)
        return torch.ops.aten.convolution(
            x, weight, bias, self.stride, self.padding, self.dilation, False, no_output_padding, self.groups
        )

    def backward(
        self, grad_output: Tensor, x: Tensor, weight: Tensor, grad_input: bool, grad_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """grad_input [N, C_in, *space] and grad_weight, of `weight`'s shape; None where not asked for."""
        if grad_weight and not grad_input and self._has_few_positions(grad_output):
            return None, self._grad_weight_by_windows(grad_output, x, weight)
        grads = torch.ops.aten.convolution_backward(
            grad_output,
            x,
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            [0] * len(self.stride),
            self.groups,
            [grad_input, grad_weight, False],
        )
        return grads[0], grads[1]

    def _has_few_positions(self, grad_output: Tensor) -> bool:
        """Whether one matrix product is faster: 0.3 to 1.0 of the time below as many positions as output channels.

        Measured on an Intel Xeon (AVX-512), two threads, both layouts: 64 to 512 channels, maps of 1 to 16 pixels.
        """
        samples, channels, *space = grad_output.shape
        plain = self.groups == 1 and len(space) == 2
        on_cpu = grad_output.device.type == "cpu" and grad_output.dtype == torch.float32
        return plain and on_cpu and samples * math.prod(space) <= channels

    def _grad_weight_by_windows(self, grad_output: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """[C_out, positions] times what each position saw of x, in the order in which the weight lies in memory."""
        rows, columns = self.padding
        windows = functional.pad(x, (columns, columns, rows, rows))
        for axis in (2, 3):
            size, dilation = weight.shape[axis], self.dilation[axis - 2]
            windows = windows.unfold(axis, dilation * (size - 1) + 1, self.stride[axis - 2])[..., ::dilation]
        height, width = grad_output.shape[2:]
        windows = windows[:, :, :height, :width]  # [N, C_in, *positions, *kernel]
        if weight.is_contiguous():
            seen = windows.permute(1, 4, 5, 0, 2, 3).flatten(3).flatten(0, 2)
            return (grad_output.transpose(0, 1).flatten(1) @ seen.t()).view(weight.shape)
        seen = windows.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(0, 2)
        product = grad_output.movedim(1, -1).flatten(0, 2).t() @ seen
        return product.view(weight.shape[0], *weight.shape[2:], weight.shape[1]).movedim(-1, 1)

    @staticmethod
    def grad_bias(grad_output: Tensor) -> Tensor:
        return grad_output.sum((0, *range(2, grad_output.dim())))


@dataclass(frozen=True)
class Linear:
    """y = x w^T + b. x: [N, *, in], at least two dimensions; w: [out, in]; y and grad_output: [N, *, out]."""

    groups: int = 1

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(x, weight, bias)

    def backward(
        self, grad_output: Tensor, x: Tensor, weight: Tensor, grad_input: bool, grad_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """grad_input [N, *, in] and grad_weight [out, in]; None where not asked for."""
        rows = grad_output.flatten(0, -2)
        return (
            grad_output @ weight if grad_input else None,
            rows.t() @ x.flatten(0, -2) if grad_weight else None,
        )

    @staticmethod
    def grad_bias(grad_output: Tensor) -> Tensor:
        return grad_output.flatten(0, -2).sum(0)


Operator = Convolution | Linear


def operator_of(module: nn.Module) -> Operator | None:
    """The products of a layer that uses torch's own forward; None for a class or an instance that does not."""
    if isinstance(module, nn.Linear):
        return Linear() if _runs_as(module, nn.Linear, "forward") else None
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    kind = next(base for base in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(module, base))
    if not (_runs_as(module, kind, "forward") and _runs_as(module, kind, "_conv_forward")):
        return None
    padding = (0,) * len(module.stride) if pads_first(module) else _symmetric_padding(module)
    return Convolution(module.stride, padding, module.dilation, module.groups)


def _runs_as(module: nn.Module, kind: type[nn.Module], method: str) -> bool:
    found = getattr(module, method)  # of the instance, where somebody has put one there
    return getattr(found, "__func__", None) is getattr(kind, method)


def pads_first(module: nn.Module) -> bool:
    """Whether a convolution's padding is not zeros, or not the same on both sides: it is then done before."""
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return False
    sides = module._reversed_padding_repeated_twice
    return module.padding_mode != "zeros" or sides[::2] != sides[1::2]


def padded(module: nn.Module, x: Tensor) -> Tensor:
    """x as the products see it."""
    if not pads_first(module):
        return x
    mode = cast(str, module.padding_mode)
    sides = cast(list[int], module._reversed_padding_repeated_twice)
    return functional.pad(x, sides, mode="constant" if mode == "zeros" else mode)


def _symmetric_padding(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> tuple[int, ...]:
    sides: Sequence[int] = module._reversed_padding_repeated_twice
    return tuple(reversed(sides[::2]))
