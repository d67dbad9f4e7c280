"""torchvision's classifiers, made for our classes, channels and image size."""

from __future__ import annotations

from typing import Any

import torchvision
from torch import nn

from sbp_tune.config import ModelConfig
from sbp_tune.errors import SbpTuneError
from sbp_tune.vision.stem import apply_cifar_stem, replace_first_conv

_INCEPTIONS = ("googlenet", "inception_v3")


def torchvision_names() -> list[str]:
    """Names of all torchvision classifiers."""
    return torchvision.models.list_models(module=torchvision.models)


def build_torchvision(config: ModelConfig, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """The network `config.name` with a head for num_classes, taking [N, channels, image_size, image_size].

    TypeError, ValueError or AssertionError where torchvision refuses the arguments; SbpTuneError where
    pretrained weights cannot be fetched.
    """
    args = _size_args(config.name, image_size) | config.args
    if config.pretrained:
        if config.name in _INCEPTIONS and channels != 3:
            args = {"transform_input": False} | args  # it rescales red, green and blue one by one
        model = _pretrained(config.name, num_classes, args)
    else:
        args = _inception_args(config.name) | args
        model = torchvision.models.get_model(config.name, weights=None, num_classes=num_classes, **args)
    if channels != 3:
        replace_first_conv(model, channels, keep_weights=config.pretrained)
    if config.stem == "cifar":
        apply_cifar_stem(model, config.name)
    return model


def _size_args(name: str, image_size: int) -> dict[str, Any]:
    """These transformers are built for one image size."""
    if name.startswith("vit_"):
        return {"image_size": image_size}
    return {"input_size": (image_size, image_size)} if name.startswith("maxvit") else {}


def _inception_args(name: str) -> dict[str, Any]:
    """No second and third output in training, and torchvision's own initialisation without its warning."""
    return {"aux_logits": False, "init_weights": True} if name in _INCEPTIONS else {}


def _pretrained(name: str, num_classes: int, args: dict[str, Any]) -> nn.Module:
    auxiliary = args.get("aux_logits", False)
    args = {key: value for key, value in args.items() if key != "aux_logits" or value}
    try:
        model = torchvision.models.get_model(name, weights="DEFAULT", **args)
    except OSError as error:
        raise SbpTuneError(f"model.pretrained: the weights of {name} cannot be fetched: {error}") from error
    if name == "inception_v3" and not auxiliary:  # its weights come with the auxiliary head
        model.aux_logits, model.AuxLogits = False, None
    _replace_heads(model, len(torchvision.models.get_model_weights(name).DEFAULT.meta["categories"]), num_classes)
    return model


def _replace_heads(model: nn.Module, old_classes: int, num_classes: int) -> None:
    """New last layers; in torchvision's classifiers only these, linear or 1x1, have as many outputs as classes."""
    for path, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and layer.out_features == old_classes:
            model.set_submodule(path, nn.Linear(layer.in_features, num_classes))
        elif isinstance(layer, nn.Conv2d) and layer.out_channels == old_classes:
            model.set_submodule(path, nn.Conv2d(layer.in_channels, num_classes, 1))
