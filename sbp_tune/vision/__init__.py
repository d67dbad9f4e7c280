"""Data sets, augmentation on the device, networks and metrics."""

from sbp_tune.vision.augment import augment, jitter, normalize, scaled
from sbp_tune.vision.data import ImageData, Split, load_dataset
from sbp_tune.vision.metrics import ClassificationMetrics
from sbp_tune.vision.models import build_model, check_model

__all__ = [
    "ClassificationMetrics",
    "ImageData",
    "Split",
    "augment",
    "build_model",
    "check_model",
    "jitter",
    "load_dataset",
    "normalize",
    "scaled",
]
