"""CIFAR-10: 10 classes, images of 32x32 pixels (Krizhevsky 2009)."""

from __future__ import annotations

from torchvision.datasets import CIFAR10

from sbp_tune.config import DataConfig
from sbp_tune.vision.data import ImageData
from sbp_tune.vision.datasets._cifar import load_cifar

NEEDS = "cifar-10-batches-py in the folder data.root"


def load(config: DataConfig) -> ImageData:
    """Images uint8 [N, 3, 32, 32] or at image_size, from cifar-10-batches-py below data.root."""
    return load_cifar(config, CIFAR10)
