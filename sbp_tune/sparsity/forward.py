"""What takes the place of a module's `forward` while a handle is attached, and how it leaves again.

Only the instance attribute `forward` changes: parameters, buffers and hooks, and so the keys of
`state_dict`, stay. A deep copy or a pickle of the model is an ordinary dense model. `torch.compile`
works, but each swapped layer runs eagerly between the compiled graphs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbp_tune.sparsity.estimators._base import Mode
from sbp_tune.sparsity.flops import product_flops
from sbp_tune.sparsity.layers import Layer
from sbp_tune.sparsity.operators import padded
from sbp_tune.sparsity.products import Products, SparseBackward

if TYPE_CHECKING:
    from sbp_tune.sparsity.handle import SparsityHandle


class SwappedForward:
    """A callable in the place of `module.forward`, until `remove`."""

    def __init__(self, module: nn.Module, handle: SparsityHandle) -> None:
        self.module = module
        self.handle = handle
        self.native = module.forward
        self._previous = module.__dict__.get("forward")
        module.__dict__["forward"] = self

    def remove(self) -> None:
        if self._previous is None:
            self.module.__dict__.pop("forward", None)
        else:
            self.module.__dict__["forward"] = self._previous

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of the module gets the forward of its class."""
        return getattr, (self.module, "forward")


class ModuleForward(SwappedForward):
    """A module with parameters of its own, such as a normalisation: with its graph or without."""

    def __init__(self, name: str, module: nn.Module, handle: SparsityHandle) -> None:
        super().__init__(module, handle)
        self.name = name

    @torch.compiler.disable
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.native(*args, **kwargs)
        self.handle.ran(self.name)
        if not self.handle.drawn().runs_without_graph(self.name):
            return self.native(*args, **kwargs)
        with torch.no_grad():
            return self.native(*args, **kwargs)


class LayerForward(SwappedForward):
    """A convolution or linear layer: runs as the estimator says, and counts its products."""

    def __init__(self, layer: Layer, handle: SparsityHandle, may_be_sparse: bool) -> None:
        super().__init__(layer.module, handle)
        self.layer = layer
        self.may_be_sparse = may_be_sparse

    @torch.compiler.disable
    def __call__(self, input: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self.native(input)
        mode = self._mode(input)
        if mode is Mode.SPARSE:
            output = self._sparse(input)
        elif mode is Mode.FIXED_WEIGHT:
            output = self._with_weight(input, self.layer.weight.detach())
            self._count_when_backward_runs(input, output, self.layer.weight.detach())
        elif mode is Mode.NO_GRAPH:
            with torch.no_grad():
                output = self.native(input)
        else:
            output = self.native(input)
            self._count_when_backward_runs(input, output, self.layer.weight)
        flops = product_flops(output, self.layer.weight)
        self.handle.flops.add(self.layer.name, "forward", flops)
        self.handle.ran(self.layer.name, flops)
        return output

    def _mode(self, x: Tensor) -> Mode:
        if not self.may_be_sparse or x.dim() < self._batched_dims():
            return Mode.DENSE
        estimator = self.handle.drawn()
        mode = estimator.mode(self.layer)
        if mode is not Mode.SPARSE:
            return mode
        if not self.layer.weight.requires_grad and not x.requires_grad:
            return Mode.DENSE
        if not estimator.is_timed(self.layer):
            return Mode.SPARSE
        dense = self.handle.auto_dense.prefers_dense(self.layer, estimator.variant(self.layer))
        return Mode.DENSE if dense else Mode.SPARSE

    def _batched_dims(self) -> int:
        return 2 if isinstance(self.module, nn.Linear) else self.layer.weight.dim()

    def _sparse(self, x: Tensor) -> Tensor:
        operator, layer, handle = self.layer.operator, self.layer, self.handle
        assert operator is not None
        variant = handle.estimator.variant(layer)
        bias = self.module.bias
        assert bias is None or isinstance(bias, Tensor)

        def rule(products: Products) -> tuple[Tensor | None, Tensor | None]:
            return handle.auto_dense.backward(layer, handle.estimator, variant, products)

        def count(product: str, flops: int) -> None:
            handle.flops.add(layer.name, product, flops)

        inputs = [_autocast(tensor) for tensor in (padded(self.module, x), layer.weight, bias)]
        output: Tensor = SparseBackward.apply(*inputs, operator, rule, count)
        return output

    def _with_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        module = self.module
        bias: Any = module.bias
        if isinstance(module, nn.Linear):
            return functional.linear(x, weight, bias)
        assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        return module._conv_forward(x, weight, bias)

    def _count_when_backward_runs(self, x: Tensor, output: Tensor, weight: Tensor) -> None:
        if not output.requires_grad:
            return
        flops = product_flops(output, weight)
        products = [
            name for name, wanted in (("grad_input", x.requires_grad), ("grad_weight", weight.requires_grad)) if wanted
        ]

        def count(_: Tensor) -> None:
            for product in products:
                self.handle.flops.add(self.layer.name, product, flops)

        output.register_hook(count)


def _autocast(tensor: Tensor | None) -> Tensor | None:
    """As autocast does for a convolution or linear layer, which an autograd function would hide from it."""
    if tensor is None or not torch.is_autocast_enabled(tensor.device.type):
        return tensor
    if not tensor.is_floating_point() or tensor.dtype is torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(tensor.device.type))
