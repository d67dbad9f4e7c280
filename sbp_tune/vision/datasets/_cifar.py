"""CIFAR-10 and CIFAR-100: 50 000 training and 10 000 test images of 32x32 pixels."""

from __future__ import annotations

from typing import Any

import torch

from sbp_tune.config import DataConfig
from sbp_tune.vision.data import ImageData, Split, resized, split_from_train
from sbp_tune.vision.datasets._torchvision import open_dataset


def load_cifar(config: DataConfig, dataset: Any) -> ImageData:
    """`dataset` is torchvision's class; the validation images are split from the training images."""
    train, test = (open_dataset(dataset, config, dataset.base_folder, train=part) for part in (True, False))
    train_images, test_images = (
        resized(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), config.image_size)
        for part in (train, test)
    )
    test_split = Split(test_images, torch.tensor(test.targets))
    return split_from_train(train_images, torch.tensor(train.targets), config, tuple(train.classes), test=test_split)
