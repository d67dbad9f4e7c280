"""The layers whose backward pass has two products to save: convolutions and linear layers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

SPARSIFIABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class Layer:
    """A named convolution or linear layer; its bias and all normalisation layers stay dense."""

    name: str
    module: nn.Module

    @property
    def weight(self) -> nn.Parameter:
        """[C_out, C_in / groups, *kernel] for a convolution, [out, in] for a linear layer."""
        weight = self.module.weight
        assert isinstance(weight, nn.Parameter)
        return weight


def sparsifiable_layers(model: nn.Module) -> list[Layer]:
    """Convolutions and linear layers in the order of registration, each shared module once."""
    return [Layer(name, module) for name, module in model.named_modules() if isinstance(module, SPARSIFIABLE)]
