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

from typing import Any

from torch import nn

from sbp_tune.errors import InputError
from sbp_tune.sparsity.estimators._cut import GraphCut
from sbp_tune.sparsity.layers import LAYER_TYPES

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


class BranchDrop(GraphCut):
    """Residual branches run without a graph at random."""

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

    def draw(self) -> None:
        dropped: set[str] = set()
        for branch in self._branches:
            fractions = [self.keep[name] for name in branch if name in self.keep]
            if self.random() >= (sum(fractions) / len(fractions) if fractions else self.p):
                dropped.update(branch)
        self.cut(dropped)


def find_branches(model: nn.Module) -> list[list[nn.Module]]:
    """For each residual branch its modules with parameters; blocks without a shortcut have none."""
    branches = []
    for block in model.modules():
        if not getattr(block, "use_res_connect", True):
            continue
        for children in _BRANCHES.get(type(block).__name__, ()):
            if all(isinstance(getattr(block, child, None), nn.Module) for child in children):
                parts = [module for child in children for module in getattr(block, child).modules()]
                branches.append([module for module in parts if isinstance(module, LAYER_TYPES) or _holds(module)])
    return branches


def _holds(module: nn.Module) -> bool:
    """Whether it has parameters of its own."""
    return any(True for _ in module.parameters(recurse=False))


def _excluded(branch: list[nn.Module], may_be_sparse: set[nn.Module]) -> bool:
    layers = [module for module in branch if isinstance(module, LAYER_TYPES)]
    return any(layer not in may_be_sparse for layer in layers)
