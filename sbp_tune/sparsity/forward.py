"""What takes the place of a module's `forward` while a handle is attached, and how it leaves again.

Only the instance attribute `forward` changes: parameters, buffers and hooks, and so the keys of
`state_dict`, stay. A deep copy or a pickle of the model is an ordinary dense model. Under
`torch.compile` a layer with products of its own is one operator of the graph (see `compiled`);
everything else runs eagerly between the compiled graphs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.sparsity.compiled import as_operator, register
from sbp_tune.sparsity.estimators._base import Estimator, Mode
from sbp_tune.sparsity.flops import filter_size
from sbp_tune.sparsity.layers import TRANSPOSED, Layer
from sbp_tune.sparsity.operators import padded
from sbp_tune.sparsity.products import Gradients, Products, SparseBackward

if TYPE_CHECKING:
    from sbp_tune.sparsity.handle import SparsityHandle


class SwappedForward:
    """A callable in the place of `module.forward`, until `remove`."""

    def __init__(self, name: str, module: nn.Module, handle: SparsityHandle) -> None:
        self.name = name
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

    def _without_grad(self, *args: Any, **kwargs: Any) -> Any:
        if self.module.training:
            self.handle.ran_without_grad(self.name)
        return self.native(*args, **kwargs)


class ModuleForward(SwappedForward):
    """A module with parameters of its own, such as a normalisation: with its graph or without."""

    @torch.compiler.disable
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._without_grad(*args, **kwargs)
        self.handle.ran(self.name)
        if not self.handle.drawn().runs_without_graph(self.name):
            return self.native(*args, **kwargs)
        with torch.no_grad():
            return self.native(*args, **kwargs)


class OpaqueForward(SwappedForward):
    """A layer without products of its own, whose forward may take and give anything: counted, perhaps without graph."""

    def __init__(self, layer: Layer, handle: SparsityHandle, may_be_cut: bool) -> None:
        super().__init__(layer.name, layer.module, handle)
        self.may_be_cut = may_be_cut
        self.filter_size = filter_size(layer.module)
        self._learning = [p for name, p in layer.module.named_parameters() if name != "bias"]

    @torch.compiler.disable
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._without_grad(*args, **kwargs)
        if self.may_be_cut and self.handle.drawn().runs_without_graph(self.name):
            with torch.no_grad():
                output = self.native(*args, **kwargs)
        else:
            output = self.native(*args, **kwargs)
        x = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        if x is None or not isinstance(output, Tensor):
            self.handle.ran(self.name)
            return output
        flops = 2 * (x if isinstance(self.module, TRANSPOSED) else output).numel() * self.filter_size
        self.handle.flops.add(self.name, "forward", flops)
        self.handle.ran(self.name, flops)
        learns = any(parameter.requires_grad for parameter in self._learning)
        _count_when_backward_runs(self.handle, self.name, output, flops, x.requires_grad, learns)
        return output


class LayerForward(SwappedForward):
    """A convolution or linear layer: runs as the estimator says, and counts its products."""

    def __init__(self, layer: Layer, handle: SparsityHandle, may_be_sparse: bool) -> None:
        super().__init__(layer.name, layer.module, handle)
        assert layer.operator is not None
        self.layer = layer
        self.operator = layer.operator
        always_dense = type(handle.estimator).mode is Estimator.mode
        self.may_be_sparse = may_be_sparse and not always_dense
        self.filter_size = filter_size(layer.module)
        self.key = None if handle.estimator.cuts_graph else register(self)
        self._batched_dims = 2 if isinstance(layer.module, nn.Linear) else layer.weight.dim()

    def __call__(self, input: Tensor) -> Tensor:
        if self.key is not None and torch.compiler.is_compiling():
            if not torch.is_grad_enabled() or input.dim() < self._batched_dims:
                output: Tensor = self.native(input)
                return output
            inputs = [_autocast(tensor) for tensor in (padded(self.module, input), self.layer.weight, self._bias)]
            return as_operator(*inputs, self.key)
        return self._run(input)

    @torch.compiler.disable
    def _run(self, input: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            output: Tensor = self._without_grad(input)
            return output
        weight = self.layer.weight
        if input.device != weight.device:
            raise SbpTuneError(
                f"{self.name}: its input is on {input.device}, its weight on {weight.device}; nn.DataParallel cannot "
                "copy a sparse layer to other devices, DistributedDataParallel can"
            )
        mode = self.mode(input, weight.requires_grad or input.requires_grad)
        if mode is Mode.NO_GRAPH:
            with torch.no_grad():
                output = self.native(input)
        elif mode is Mode.SPARSE:
            inputs = [_autocast(tensor) for tensor in (padded(self.module, input), weight, self._bias)]
            output = SparseBackward.apply(*inputs, self.operator, self.rule(), self.count)
        elif mode is Mode.FIXED_WEIGHT:
            output = self._with_weight(input, weight.detach())
        else:
            output = self.native(input)
        flops = self.count_forward(output)
        if mode in (Mode.DENSE, Mode.FIXED_WEIGHT):
            learns = mode is Mode.DENSE and weight.requires_grad
            _count_when_backward_runs(self.handle, self.name, output, flops, input.requires_grad, learns)
        return output

    def mode(self, x: Tensor, learns: bool = True) -> Mode:
        """How the layer runs on a batch x, in this step. learns: whether anybody wants one of its products."""
        if not self.may_be_sparse or x.dim() < self._batched_dims or not len(x):
            return Mode.DENSE
        if torch._C._are_functorch_transforms_active():
            raise SbpTuneError(f"{self.name}: sparse layers do not work under torch.func; call handle.remove() before")
        estimator = self.handle.drawn()
        mode = estimator.mode(self.layer)
        if mode is not Mode.SPARSE:
            return mode
        if not learns:
            return Mode.DENSE
        if not estimator.is_timed(self.layer):
            return Mode.SPARSE
        dense = self.handle.auto_dense.prefers_dense(self.layer, estimator.variant(self.layer))
        return Mode.DENSE if dense else Mode.SPARSE

    def rule(self) -> Any:
        """The estimator's backward pass of this layer, as it is now."""
        layer, handle = self.layer, self.handle
        variant = handle.estimator.variant(layer)

        def rule(products: Products) -> Gradients:
            return handle.auto_dense.backward(layer, handle.estimator, variant, products)

        return rule

    def count(self, product: str, flops: int) -> None:
        """`flops` of a product were executed."""
        self.handle.flops.add(self.name, product, flops)

    def count_forward(self, output: Tensor) -> int:
        """FLOPs of the forward pass that gave the output, which are now counted."""
        flops = 2 * output.numel() * self.filter_size
        self.count("forward", flops)
        self.handle.ran(self.name, flops)
        return flops

    @property
    def _bias(self) -> Tensor | None:
        bias = self.module.bias
        assert bias is None or isinstance(bias, Tensor)
        return bias

    def _with_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        module = self.module
        if isinstance(module, nn.Linear):
            return functional.linear(x, weight, self._bias)
        assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        return module._conv_forward(x, weight, self._bias)


def check_untouched(model: nn.Module) -> None:
    """InputError where a handle is attached already: two would each count and draw, and undo each other."""
    if any(isinstance(module.__dict__.get("forward"), SwappedForward) for module in model.modules()):
        raise InputError("the model is sparse already; call remove() of its handle first")


def _count_when_backward_runs(
    handle: SparsityHandle, name: str, output: Tensor, flops: int, grad_input: bool, grad_weight: bool
) -> None:
    if not output.requires_grad:
        return

    def count(_: Tensor) -> None:
        if grad_input:
            handle.flops.add(name, "grad_input", flops)
        if grad_weight:
            handle.flops.add(name, "grad_weight", flops)

    output.register_hook(count)


def _autocast(tensor: Tensor | None) -> Tensor | None:
    """As autocast does for a convolution or linear layer, which an autograd function would hide from it."""
    if tensor is None or not torch.is_autocast_enabled(tensor.device.type):
        return tensor
    if not tensor.is_floating_point() or tensor.dtype is torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(tensor.device.type))
