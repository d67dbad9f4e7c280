"""scikit-learn's handwritten digits: 1797 grey images of 8x8 pixels, ten classes; needs no folder."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from sbp_tune.config import DataConfig
from sbp_tune.vision.data import ImageData, resized, split_from_train

NEEDS = "nothing: it comes with scikit-learn"


def load(config: DataConfig) -> ImageData:
    """Images uint8 [N, 1, 8, 8] or at image_size, split by the fractions; grey levels 0..16 become 0..255."""
    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    classes = tuple(str(name) for name in digits.target_names)
    return split_from_train(resized(images, config.image_size), labels, config, classes, test=None)
