"""The layers whose backward pass has two products to save: convolutions and linear layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from sbp_tune.sparsity.operators import Operator, operator_of

LAYER_TYPES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True, eq=False)
class Layer:
    """A named convolution or linear layer.

    operator: its two products, None where `why_dense` says why they cannot be run one by one.
    """

    name: str
    module: nn.Module
    operator: Operator | None
    why_dense: str

    @property
    def weight(self) -> Tensor:
        """[C_out, C_in / groups, *kernel] for a convolution, [out, in] for a linear layer."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def groups(self) -> int:
        """Groups of channels; 1 for a linear layer."""
        groups = getattr(self.module, "groups", 1)
        assert isinstance(groups, int)
        return groups


def find_layers(model: nn.Module) -> list[Layer]:
    """Convolutions and linear layers in the order of registration, each shared module once."""
    uses = Counter(weight for module in model.modules() for weight in module.parameters(recurse=False))
    return [_layer(name, module, uses) for name, module in model.named_modules() if isinstance(module, LAYER_TYPES)]


def choose_sparse(
    layers: list[Layer], default_dense: Collection[str], exclude: Collection[str], include: Collection[str]
) -> dict[str, str]:
    """Why each of the layers that stay dense does so, by name. The other layers may become sparse.

    default_dense: kinds of layers, of `first`, `last` and `downsample`; `exclude` adds layers by glob of
    their names, `include` has the last word.
    """
    reasons: dict[str, str] = {}
    for layer in layers:
        wanted = any(fnmatchcase(layer.name, pattern) for pattern in include)
        kind = next((kind for kind in default_dense if _KINDS[kind](layer, layers)), None)
        if layer.operator is None:
            reasons[layer.name] = layer.why_dense
        elif any(fnmatchcase(layer.name, pattern) for pattern in exclude) and not wanted:
            reasons[layer.name] = "excluded by the config"
        elif kind is not None and not wanted:
            reasons[layer.name] = f"{kind} layer"
    return reasons


def _layer(name: str, module: nn.Module, uses: Counter[nn.Parameter]) -> Layer:
    weight = module._parameters.get("weight")
    if not isinstance(weight, nn.Parameter):
        return Layer(name, module, None, "its weight is computed, not a parameter")
    if uses[weight] > 1:
        return Layer(name, module, None, "its weight is another module's too")
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
