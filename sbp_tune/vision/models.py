"""Networks by name: our two small ones, torchvision's classifiers, or the user's own module:Class."""

from __future__ import annotations

import difflib
import importlib

import torch
from torch import Tensor, nn

from sbp_tune.config import ModelConfig
from sbp_tune.errors import InputError
from sbp_tune.memory import is_out_of_memory
from sbp_tune.vision.small_cnn import SmallCNN
from sbp_tune.vision.small_resnet import SmallResNet
from sbp_tune.vision.stem import check_cifar_stem
from sbp_tune.vision.torchvision_models import build_torchvision, torchvision_names
from sbp_tune.vision.weights import load_weights

_OWN: dict[str, type[nn.Module]] = {"small_cnn": SmallCNN, "small_resnet": SmallResNet}


def check_model(config: ModelConfig) -> None:
    """InputError for an unknown name, or options that the network cannot have; builds nothing."""
    own = config.name in _OWN or ":" in config.name
    if ":" in config.name:
        _user_class(config.name)
    elif not own and config.name not in torchvision_names():
        close = difflib.get_close_matches(config.name, [*_OWN, *torchvision_names()])
        hint = f" (did you mean {', '.join(close)}?)" if close else ""
        raise InputError(
            f"model.name: found {config.name!r}; allowed: {', '.join(_OWN)}, a torchvision classifier, "
            f"module:Class{hint}"
        )
    if config.stem == "cifar":
        check_cifar_stem(config.name)
    if config.pretrained and own:
        raise InputError(f"model.pretrained: {config.name} has no pretrained weights; torchvision classifiers have")
    if config.pretrained and config.weights:
        raise InputError("model.weights: found with pretrained; leave out one of the two")
    if config.init == "he" and (config.pretrained or config.weights):
        raise InputError("model.init: he would overwrite the pretrained weights; leave out one of the two")


def build_model(config: ModelConfig, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """A network [N, channels, image_size, image_size] -> logits [N, num_classes], on the CPU, in training mode.

    The weights are drawn from torch's global generator: seed it before for a repeatable network. InputError
    where the name, the arguments or the image size do not fit; SbpTuneError where weights cannot be fetched.
    """
    check_model(config)
    try:
        model = _construct(config, num_classes, channels, image_size)
    except (TypeError, ValueError, AssertionError) as error:  # what constructors raise for arguments they refuse
        raise InputError(
            f"model.args: {config.name} cannot be built for {image_size} px with {config.args}: {_one_line(error)}"
        ) from error
    if config.init == "he":
        he_init(model)
    if config.weights:
        load_weights(model, config.weights, num_classes)
    _check_forward(model, config.name, num_classes, channels, image_size)
    return model


def he_init(model: nn.Module) -> None:
    """He normal weights, fan-out, for all convolutions and linear layers, biases zero (He et al. 2015, eq. 14)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _construct(config: ModelConfig, num_classes: int, channels: int, image_size: int) -> nn.Module:
    if config.name in _OWN:
        return _OWN[config.name](num_classes, channels, **config.args)
    if ":" not in config.name:
        return build_torchvision(config, num_classes, channels, image_size)
    return _user_class(config.name)(num_classes=num_classes, **config.args)


def _user_class(name: str) -> type[nn.Module]:
    """The class behind 'module:Class'."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # an import runs the user's code, which may raise anything
        raise InputError(f"model.name: {name}: {module_name!r} cannot be imported: {_one_line(error)}") from error
    found = getattr(module, attribute, None)
    if found is None:
        raise InputError(f"model.name: {name}: module {module_name} has no {attribute!r}")
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise InputError(f"model.name: {name} is not a torch.nn.Module class")
    return found


def _check_forward(model: nn.Module, name: str, num_classes: int, channels: int, image_size: int) -> None:
    """One forward pass of zeros, in evaluation mode; leaves the network and the random state as they were."""
    images = torch.zeros(2, channels, image_size, image_size)
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = model(images)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:  # what layers raise for such input
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"model.name: {name} does not take images of {image_size}x{image_size} px "
            f"with {channels} channel{'s' * (channels != 1)} (data.image_size): {_one_line(error)}"
        ) from error
    model.train()
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (2, num_classes):
        raise InputError(f"model.name: {name} gives {found} for 2 images, needs logits of shape {(2, num_classes)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
