"""What an estimator may make sparse: the weights of convolutions and linear layers, and by request other parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sbp_tune.errors import InputError
from sbp_tune.sparsity.operators import Operator, operator_of

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYER_TYPES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, *TRANSPOSED)


@dataclass(frozen=True, eq=False)
class Layer:
    """A named convolution or linear layer; or any other parameter, under its own name (see `find_parameters`).

    operator: its two products, None where `why_dense` says why they cannot be run one by one.
    parameter: the attribute of the module that learns.
    """

    name: str
    module: nn.Module
    operator: Operator | None
    why_dense: str
    parameter: str = "weight"

    @property
    def weight(self) -> Tensor:
        """[C_out, C_in / groups, *kernel] for a convolution, [out, in] for a linear layer."""
        weight = getattr(self.module, self.parameter)
        assert isinstance(weight, Tensor)
        return weight

    @property
    def own_weight(self) -> nn.Parameter | None:
        """The weight, where it is a parameter and not computed from others."""
        return self.module._parameters.get(self.parameter)

    @property
    def groups(self) -> int:
        """Groups of channels; 1 for a linear layer."""
        groups = getattr(self.module, "groups", 1)
        assert isinstance(groups, int)
        return groups


def find_layers(model: nn.Module) -> list[Layer]:
    """Convolutions and linear layers in the order of registration, each shared module once.

    InputError for a lazy layer that has not yet seen a batch: nothing is known of its weight.
    """
    uses = Counter(weight for module in model.modules() for weight in module.parameters(recurse=False))
    by_attention: set[nn.Module] = {
        module.out_proj for module in model.modules() if isinstance(module, nn.MultiheadAttention)
    }
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, LAYER_TYPES)]
    lazy = [name for name, module in found if any(map(is_lazy, module.parameters(recurse=False)))]
    if lazy:
        raise InputError(f"lazy layers have no shape before the model has seen a batch; run one first: {lazy[0]}")
    return [_layer(name, module, uses, by_attention) for name, module in found]


def find_parameters(model: nn.Module, layers: list[Layer]) -> list[Layer]:
    """All parameters but the weights of `layers`: normalisation, biases, embeddings, tokens."""
    weights = {layer.own_weight for layer in layers}
    found = []
    for name, parameter in model.named_parameters():
        if parameter not in weights:
            parent, _, attribute = name.rpartition(".")
            found.append(Layer(name, model.get_submodule(parent), None, "no product of its own", attribute))
    return found


def default_kind(layer: Layer, layers: list[Layer], kinds: tuple[str, ...]) -> str | None:
    """Which of the kinds `first`, `last` and `downsample` a layer is, if any."""
    return next((kind for kind in kinds if _KINDS[kind](layer, layers)), None)


def _layer(name: str, module: nn.Module, uses: Counter[nn.Parameter], by_attention: set[nn.Module]) -> Layer:
    weight = module._parameters.get("weight")
    if not isinstance(weight, nn.Parameter):
        return Layer(name, module, None, "its weight is computed, not a parameter")
    if uses[weight] > 1:
        return Layer(name, module, None, "its weight is another module's too")
    if module in by_attention:
        return Layer(name, module, None, "attention uses its weight without calling it")
    if isinstance(module, TRANSPOSED):
        return Layer(name, module, None, "a transposed convolution")
    if weight.is_complex():
        return Layer(name, module, None, "its weight is complex")
    operator = operator_of(module)
    return Layer(name, module, operator, "" if operator else "its forward is its own")


def _is_downsample(layer: Layer, layers: list[Layer]) -> bool:
    """The 1x1 projection of a residual shortcut: few FLOPs, and every gradient of the block's input passes it."""
    module = layer.module
    if not isinstance(module, nn.Conv2d):
        return False
    return max(module.kernel_size) == 1 and max(module.stride) > 1


_KINDS: dict[str, Callable[[Layer, list[Layer]], bool]] = {
    "first": lambda layer, layers: layer is layers[0],
    "last": lambda layer, layers: layer is layers[-1],
    "downsample": _is_downsample,
}
