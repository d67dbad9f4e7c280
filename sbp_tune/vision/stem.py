"""First layers of a network, changed for other channels or for small images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sbp_tune.errors import InputError


def replace_first_conv(model: nn.Module, channels: int, *, keep_weights: bool) -> None:
    """Makes the first convolution take `channels` inputs.

    keep_weights: each input gets the mean of the old weights, scaled so that a grey image gives what it gave
    before. Else He initialisation, as in torchvision's residual networks.
    """
    name, old = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    new = _conv_like(old, in_channels=channels)
    if keep_weights:
        with torch.no_grad():
            new.weight.copy_(old.weight.mean(1, keepdim=True) * old.in_channels / channels)
            if old.bias is not None and new.bias is not None:
                new.bias.copy_(old.bias)
    model.set_submodule(name, new)


def apply_cifar_stem(model: nn.Module, name: str) -> None:
    """Lets the first layers keep the resolution, for images of about 32 pixels (He et al. 2016, section 4.2)."""
    _stem(name)(model)


def check_cifar_stem(name: str) -> None:
    """InputError for a network for which no CIFAR stem is known."""
    _stem(name)


def _stem(name: str) -> Callable[[Any], None]:
    for family, stem in _FAMILIES.items():
        if name.startswith(family):
            return stem
    raise InputError(f"model.stem: no cifar stem is known for {name}; families that have one: {', '.join(_FAMILIES)}")


def _resnet(model: Any) -> None:
    model.conv1 = _conv_like(model.conv1, kernel_size=3, stride=1, padding=1)
    model.maxpool = nn.Identity()


def _densenet(model: Any) -> None:
    model.features.conv0 = _conv_like(model.features.conv0, kernel_size=3, stride=1, padding=1)
    model.features.pool0 = nn.Identity()


def _mobilenet_v2(model: Any) -> None:
    model.features[0][0].stride = (1, 1)  # already 3x3


def _googlenet(model: Any) -> None:
    model.conv1.conv = _conv_like(model.conv1.conv, kernel_size=3, stride=1, padding=1)
    model.maxpool1 = nn.Identity()


_FAMILIES: dict[str, Callable[[Any], None]] = {
    "resnet": _resnet,
    "resnext": _resnet,
    "wide_resnet": _resnet,
    "densenet": _densenet,
    "mobilenet_v2": _mobilenet_v2,
    "googlenet": _googlenet,
}


def _conv_like(old: nn.Conv2d, **changes: Any) -> nn.Conv2d:
    """A new convolution with the old one's settings but for `changes`, He-initialised."""
    settings: dict[str, Any] = {
        "in_channels": old.in_channels,
        "kernel_size": old.kernel_size,
        "stride": old.stride,
        "padding": old.padding,
    }
    new = nn.Conv2d(out_channels=old.out_channels, bias=old.bias is not None, **(settings | changes))
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new
