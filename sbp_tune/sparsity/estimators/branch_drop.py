"""branch_drop: in a residual block y = S(x) + f(x), f runs without a graph with probability 1 - p.

The forward pass is exact. Of a dropped branch neither product is computed and no activation is stored;
its parameters get no gradient, and x gets its gradient through S alone. Drawn for each branch and step.
Biased. Running statistics of normalisation still move. Cost of a step: 1/3 + 2/3 (1 - (1 - p) rho),
rho = share of the FLOPs in branches (0.92 in ResNet-18, 0.52 in MobileNetV2). Source: DropBP (Woo et
al., NeurIPS 2024).

Branches are found by the names that torchvision uses: residual networks, RegNet, ConvNeXt, EfficientNet,
MobileNet, vision and Swin transformers, and whatever names its blocks alike.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from sbp_tune.errors import InputError
from sbp_tune.sparsity.estimators._base import Estimator, Mode
from sbp_tune.sparsity.layers import Layer

# Class of a block: its branches, each by the children that make it up, in torchvision and its like.
_BRANCHES: dict[str, tuple[tuple[str, ...], ...]] = {
    "BasicBlock": (("conv1", "bn1", "conv2", "bn2"),),
    "Bottleneck": (("conv1", "bn1", "conv2", "bn2", "conv3", "bn3"),),
    "ResBottleneckBlock": (("f",),),
    "InvertedResidual": (("conv",), ("block",)),  # MobileNetV2, V3
    "MBConv": (("block",),),
    "FusedMBConv": (("block",),),
    "CNBlock": (("block",),),
    "EncoderBlock": (("ln_1", "self_attention"), ("ln_2", "mlp")),
    "SwinTransformerBlock": (("norm1", "attn"), ("norm2", "mlp")),
    "SwinTransformerBlockV2": (("norm1", "attn"), ("norm2", "mlp")),
}


class BranchDrop(Estimator):
    """Residual branches run without a graph at random."""

    default_dense: ClassVar[tuple[str, ...]] = ()
    cuts_graph: ClassVar[bool] = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        may_be_sparse = {layer.module for layer in self.layers}
        branches = [branch for branch in find_branches(self.model) if not _excluded(branch, may_be_sparse)]
        if not branches:
            raise InputError(
                f"sparsity.estimator: branch_drop needs residual branches, and {type(self.model).__name__} has none "
                f"that may be dropped; known blocks: {', '.join(_BRANCHES)}"
            )
        names = {module: name for name, module in self.model.named_modules()}
        self._branches = [[names[module] for module in branch] for branch in branches]
        self._parameters = {name: list(module.parameters()) for module, name in names.items()}
        self._dropped: set[str] = set()

    def draw(self) -> None:
        self._dropped = set()
        for branch in self._branches:
            fractions = [self.keep[name] for name in branch if name in self.keep]
            if self.random() >= (sum(fractions) / len(fractions) if fractions else self.p):
                self._dropped.update(branch)

    def mode(self, layer: Layer) -> Mode:
        return Mode.NO_GRAPH if layer.name in self._dropped else Mode.DENSE

    def runs_without_graph(self, name: str) -> bool:
        return name in self._dropped

    def skipped(self) -> list[Tensor]:
        return [parameter for name in self._dropped for parameter in self._parameters[name]]


def find_branches(model: nn.Module) -> list[list[nn.Module]]:
    """For each residual branch its modules with parameters; blocks without a shortcut have none."""
    branches = []
    for block in model.modules():
        if not getattr(block, "use_res_connect", True):
            continue
        for children in _BRANCHES.get(type(block).__name__, ()):
            if all(hasattr(block, child) for child in children):
                parts = [module for child in children for module in getattr(block, child).modules()]
                branches.append([module for module in parts if any(True for _ in module.parameters(recurse=False))])
    return branches


def _excluded(branch: list[nn.Module], may_be_sparse: set[nn.Module]) -> bool:
    layers = [module for module in branch if isinstance(module, nn.Conv2d | nn.Linear)]
    return any(layer not in may_be_sparse for layer in layers)
