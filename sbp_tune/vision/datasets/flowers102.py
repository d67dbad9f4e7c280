"""Oxford Flowers-102, with its own three splits, or with data.resplit its own test split alone.

Source: Nilsback and Zisserman 2008.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torchvision.datasets import Flowers102

from sbp_tune.config import DataConfig
from sbp_tune.vision.data import ImageData, data_root
from sbp_tune.vision.datasets._files import Files, Sample, load_files
from sbp_tune.vision.datasets._torchvision import open_dataset
from sbp_tune.vision.splits import stratified_parts

NEEDS = "flowers-102 (jpg, imagelabels.mat, setid.mat) in the folder data.root"
_DEFAULT_SIZE = 224  # the images vary in size, so there must be one


def load(config: DataConfig) -> ImageData:
    """Images uint8 [N, 3, S, S], S = image_size or 224, from flowers-102 below data.root."""
    return load_files(config, files(config))


def files(config: DataConfig) -> Files:
    """What `load` decodes: the files of each split."""
    root = data_root(config, may_be_absent=True)
    samples: dict[str, list[Sample]] = {}
    for part in ("train", "val", "test"):
        flowers = open_dataset(Flowers102, config, "flowers-102", split=part, loader=Path)  # paths, not pixels
        pairs = (flowers[index] for index in range(len(flowers)))
        samples[part] = [(str(path.relative_to(root)), label) for path, label in pairs]
    if config.resplit:
        whole = samples["train"] + samples["val"]
        labels = np.array([label for _, label in whole], np.int64)
        parts = stratified_parts(labels, {"val": config.val_fraction}, config.split_seed, tuple(Flowers102.classes))
        samples |= {part: [whole[index] for index in indices] for part, indices in parts.items()}
    return Files(root, samples, tuple(Flowers102.classes), config.image_size or _DEFAULT_SIZE)
