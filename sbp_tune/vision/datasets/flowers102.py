"""Oxford Flowers-102, with its own three splits (Nilsback and Zisserman 2008)."""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets import Flowers102

from sbp_tune.config import DataConfig
from sbp_tune.vision.data import ImageData, data_root
from sbp_tune.vision.datasets._files import load_files
from sbp_tune.vision.datasets._torchvision import open_dataset

_DEFAULT_SIZE = 224  # the images vary in size, so there must be one


def load(config: DataConfig) -> ImageData:
    """Images uint8 [N, 3, S, S], S = image_size or 224, from flowers-102 below data.root."""
    root = data_root(config, may_be_absent=True)
    samples = {}
    for part in ("train", "val", "test"):
        flowers = open_dataset(Flowers102, config, "flowers-102", split=part, loader=Path)  # paths, not pixels
        pairs = (flowers[index] for index in range(len(flowers)))
        samples[part] = [(str(path.relative_to(root)), label) for path, label in pairs]
    return load_files(config, root, samples, tuple(Flowers102.classes), config.image_size or _DEFAULT_SIZE)
