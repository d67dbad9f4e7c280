"""Image data in memory: three splits of uint8 images, and the loader that picks a data set by name."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from sbp_tune.config import DataConfig
from sbp_tune.errors import InputError
from sbp_tune.vision.splits import stratified_parts, stratified_subset

_CHUNK_BYTES = 32 * 2**20  # of uint8 images at once; statistics need eight times as much


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [N, C, H, W] and labels int64 [N]. Trials share them: never change them in place."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor) -> Split:
        """The images at `indices` [M], in that order, as a copy."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True, eq=False)
class ImageData:
    """Three splits, the class names by label, and the training split's mean and std per channel in [0, 1]."""

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]


def load_dataset(config: DataConfig) -> ImageData:
    """The data set `config.name`, split, with `config.classes` alone, cut to `config.subset` training images.

    The last result stays in the process, so a Ray actor that runs trial after trial loads once; files that
    change in the meantime are not noticed. InputError where the data are missing or cannot be used.
    """
    fed = {"batch_size": 1, "augment": "none", "normalize": "standard"}  # changes nothing of what is loaded
    return _load(config.model_copy(update=fed))


@lru_cache(maxsize=1)
def _load(config: DataConfig) -> ImageData:
    data: ImageData = importlib.import_module(f"sbp_tune.vision.datasets.{config.name}").load(config)
    if (classes := chosen_classes(config, data.classes)) != data.classes:
        data = _only_classes(data, classes)
    if config.subset is None:
        return data
    chosen = stratified_subset(data.train.labels.numpy(), config.subset, config.split_seed)
    return image_data(data.train.select(torch.from_numpy(chosen)), data.val, data.test, data.classes)


def chosen_classes(config: DataConfig, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Which of a data set's classes a config uses, in the order of their labels.

    Also what has chosen from them already is fine. InputError for an unknown or repeated class, or one alone.
    """
    chosen = config.classes
    if config.class_count is not None:
        if config.class_count > len(classes):
            raise InputError(f"data.class_count: found {config.class_count}; allowed: 2 to {len(classes)}")
        if config.class_count == len(classes):
            return classes
        drawn = np.random.default_rng(config.split_seed).choice(len(classes), config.class_count, replace=False)
        return tuple(classes[index] for index in sorted(drawn))
    if unknown := [name for name in chosen if name not in classes]:
        raise InputError(f"data.classes: found {', '.join(unknown)}; allowed: {', '.join(classes)}")
    if chosen and len(set(chosen)) < max(2, len(chosen)):
        raise InputError(f"data.classes: found {', '.join(chosen)}; needs two or more, each once")
    return chosen or classes


def _only_classes(data: ImageData, classes: tuple[str, ...]) -> ImageData:
    """The images of these classes, labelled by their place."""
    place = torch.full((data.num_classes,), -1)
    place[[data.classes.index(name) for name in classes]] = torch.arange(len(classes))

    def only(split: Split) -> Split:
        labels = place[split.labels]
        return Split(split.images[labels >= 0], labels[labels >= 0])

    return image_data(only(data.train), only(data.val), only(data.test), classes)


def image_data(train: Split, val: Split, test: Split, classes: tuple[str, ...]) -> ImageData:
    """ImageData with the statistics of `train`."""
    mean, std = channel_statistics(train.images)
    return ImageData(train, val, test, classes, mean, std)


def split_from_train(
    images: Tensor, labels: Tensor, config: DataConfig, classes: tuple[str, ...], *, test: Split | None
) -> ImageData:
    """Splits off the validation images, and the test images where `test` is none; images uint8 [N, C, H, W]."""
    fractions = {"val": config.val_fraction}
    if test is None:
        fractions["test"] = config.test_fraction
    whole = Split(images, labels)
    indices = stratified_parts(labels.numpy(), fractions, config.split_seed, classes)
    parts = {part: whole.select(torch.from_numpy(chosen)) for part, chosen in indices.items()}
    return image_data(parts["train"], parts["val"], test or parts["test"], classes)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel of uint8 images [N, C, H, W], in [0, 1], chunk by chunk.

    Sums of integers are exact in float64, so the result does not depend on the chunks. The std is at least
    one grey level, so that a constant channel can be divided by it.
    """
    sums = torch.zeros(2, images.shape[1], dtype=torch.float64)
    for chunk in images.split(max(1, _CHUNK_BYTES // images[0].numel())):
        values = chunk.double()
        sums += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
    mean, square = sums / (images.numel() // images.shape[1])
    std = (square - mean.square()).clamp_min(1).sqrt()
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def resized(images: Tensor, image_size: int | None) -> Tensor:
    """uint8 images [N, C, H, W] at image_size x image_size pixels, antialiased; unchanged where none is given."""
    if image_size is None:
        return images
    return functional.resize(images, [image_size, image_size], antialias=True)


def data_root(config: DataConfig, *, may_be_absent: bool = False) -> Path:
    """The folder `config.root`, resolved; InputError where it is not given or not there."""
    if config.root is None:
        raise InputError(f"data.root: missing; {config.name} needs the folder of its data")
    root = Path(config.root).expanduser().resolve()
    if not root.is_dir() and (root.exists() or not may_be_absent):
        raise InputError(f"data.root: {root}: {'not a' if root.exists() else 'no such'} folder")
    return root
