"""What trains in the comparisons with the loop that everybody writes, and on which images."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn import functional

from benchmarks.plain_loop import PlainLoop
from sbp_tune.config import TrainConfig
from sbp_tune.errors import InputError
from sbp_tune.numerics import resolve_device
from sbp_tune.profiling import ProfiledTraining
from sbp_tune.vision import build_model
from sbp_tune.vision.data import ImageData

SHIPPED = {"precision": "auto", "memory_format": "auto"}
"""As in the shipped search of ResNet-18 on CIFAR-10."""
_EXTENSIONS = (".jpg", ".jpeg", ".png")


class Loop(Protocol):
    """What takes a turn."""

    def train(self) -> None:
        """One pass over the training images."""

    def validate(self) -> float | None:
        """Accuracy on the validation images."""

    def about(self) -> dict[str, Any]:
        """What a table says of it beside its times."""


class Ours:
    """A Training, which watches its second epoch."""

    def __init__(self, config: TrainConfig) -> None:
        self.training = ProfiledTraining(config)

    def train(self) -> None:
        self.training.run_epoch(validate=False)

    def validate(self) -> float:
        return self.training.evaluate(self.training.val_split)["val_accuracy"]

    def about(self) -> dict[str, Any]:
        training, profile = self.training, self.training.profile
        layout = "channels_last" if training.memory_format is torch.channels_last else "contiguous"
        shares = None if profile is None else profile.shares
        return {"precision": training.precision, "memory_format": layout, "shares_of_training": shares}


class Plain:
    """The loop that everybody writes."""

    def __init__(self, loop: PlainLoop) -> None:
        self.loop = loop

    def train(self) -> None:
        self.loop.train_epoch()

    def validate(self) -> float:
        return self.loop.validate()

    def about(self) -> dict[str, Any]:
        return {}


class Bare:
    """Forward, backward and update, again and again on one batch that lies on the device: what no loop can beat."""

    def __init__(self, config: TrainConfig, images: int, classes: int, image_size: int) -> None:
        self._training = ProfiledTraining(config)  # for its network, layout and precision
        device, batch = self._training.device, config.data.batch_size
        x = torch.randn(batch, 3, image_size, image_size, device=device)
        self._x = x.to(memory_format=self._training.memory_format)
        self._y = torch.randint(0, classes, (batch,), device=device)
        self._steps = max(1, round(images / batch))

    def train(self) -> None:
        model, optimizer = self._training.model, self._training.optimizer
        for _ in range(self._steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self._x.device.type, torch.bfloat16, enabled=self._training.precision == "bf16"):
                loss = functional.cross_entropy(model(self._x), self._y)
            loss.backward()
            optimizer.step()

    def validate(self) -> None:
        return None

    def about(self) -> dict[str, Any]:
        return {}


@contextmanager
def image_folders(source: Path | None, images: int, val_images: int) -> Iterator[Path]:
    """Class folders as `linked_images` makes them, in a folder of their own, and nothing decoded yet.

    source: None for that of SBP_TUNE_CIFAR10. InputError without any.
    """
    found = source or os.environ.get("SBP_TUNE_CIFAR10")
    if found is None:
        raise InputError("--data-root: missing; it, or SBP_TUNE_CIFAR10, names the folder of the images")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SBP_TUNE_CACHE"] = f"{folder}/cache"  # decoding is timed, not found done
        root = Path(folder, "images")
        linked_images(Path(found).expanduser(), root, images, val_images)
        yield root


def linked_images(source: Path, target: Path, images: int, val_images: int) -> None:
    """Class folders of links: the first `images` below source/train, and `val_images` below source/test for the rest.

    InputError where a folder or images are missing.
    """
    for part, folder, count in (("train", "train", images), ("val", "test", val_images), ("test", "test", val_images)):
        if not (source / folder).is_dir():
            raise InputError(f"--data-root: {source}: needs {folder}/ with a folder of images for each class")
        classes = sorted(path for path in (source / folder).iterdir() if path.is_dir())
        for place, name in enumerate(classes):
            wanted = count // len(classes) + (place < count % len(classes))
            found = sorted(file for file in name.iterdir() if file.suffix.lower() in _EXTENSIONS)[:wanted]
            if len(found) < wanted:
                raise InputError(f"--data-root: {name}: has {len(found)} images, needs {wanted}; ask for fewer images")
            below = target / part / name.name
            below.mkdir(parents=True)
            for file in found:
                (below / file.name).symlink_to(file.resolve())


def plain_of(
    config: TrainConfig, weights: dict[str, Any], root: Path, data: ImageData, workers: int, fast: bool = False
) -> Plain:
    """The loop that everybody writes for a config's network, from these weights, on its images below `root`."""
    device, size = resolve_device(config.device), data.train.images.shape[-1]
    model = build_model(config.model, data.num_classes, 3, size)
    model.load_state_dict(weights)
    settings = {"batch_size": config.data.batch_size, "image_size": size, "mean": data.mean, "std": data.std}
    return Plain(PlainLoop(model, root, config.optimizer, **settings, device=device, workers=workers, fast=fast))
