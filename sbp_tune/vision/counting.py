"""How many images of each class a config trains, validates and tests with, without decoding one."""

from __future__ import annotations

import importlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sbp_tune.config import DataConfig
from sbp_tune.vision.data import chosen_classes, load_dataset
from sbp_tune.vision.datasets._files import Files
from sbp_tune.vision.decoded import decoded_path, image_shape
from sbp_tune.vision.splits import stratified_subset

Counts = NDArray[np.int64]


class ImageCounts(NamedTuple):
    """Classes by label, and of each the images in the three splits, int64 [K]; files that cannot be read count too.

    bytes: of all decoded images, uint8. decoded: the file in which they lie once for all processes of the machine,
    None of a data set that every process holds in its own memory; is_decoded: whether it is there.
    """

    classes: tuple[str, ...]
    train: Counts
    val: Counts
    test: Counts
    bytes: int
    decoded: str | None
    is_decoded: bool

    @property
    def images(self) -> int:
        """Of all classes and splits."""
        return int(self.train.sum() + self.val.sum() + self.test.sum())


def count_images(config: DataConfig) -> ImageCounts:
    """Counts by the same files, splits, classes and subset as `load_dataset`; InputError as that.

    A data set of image files is listed, not decoded; another one (CIFAR, digits) is loaded at its own size.
    """
    module = importlib.import_module(f"sbp_tune.vision.datasets.{config.name}")
    if hasattr(module, "files"):
        files: Files = module.files(config)
        labels = {part: _labels([label for _, label in pairs]) for part, pairs in files.samples.items()}
        names = [name for pairs in files.samples.values() for name, _ in pairs]
        shape: tuple[int, ...] = image_shape(files.root, names, files.image_size)
        path = decoded_path(files.root, names, files.image_size)
        decoded, is_decoded, classes, held = str(path), path.exists(), files.classes, len(names)
    else:
        data = load_dataset(
            config.model_copy(update={"image_size": None, "subset": None, "classes": (), "class_count": None})
        )
        labels = {part: getattr(data, part).labels.numpy() for part in ("train", "val", "test")}
        _, channels, *own = data.train.images.shape
        shape = (channels, *([config.image_size] * 2 if config.image_size else own))
        decoded, is_decoded, classes, held = None, False, data.classes, sum(map(len, labels.values()))
    chosen = chosen_classes(config, classes)
    place = np.full(len(classes), -1)
    place[[classes.index(name) for name in chosen]] = np.arange(len(chosen))
    kept = {part: place[of][place[of] >= 0] for part, of in labels.items()}
    if config.subset is not None:
        kept["train"] = kept["train"][stratified_subset(kept["train"], config.subset, config.split_seed)]
    counts = {part: np.bincount(of, minlength=len(chosen)) for part, of in kept.items()}
    return ImageCounts(chosen, **counts, bytes=held * int(np.prod(shape)), decoded=decoded, is_decoded=is_decoded)


def _labels(labels: list[int]) -> Counts:
    return np.array(labels, np.int64)
