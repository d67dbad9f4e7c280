"""Three splits from lists of image files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sbp_tune.config import DataConfig
from sbp_tune.errors import InputError
from sbp_tune.vision.data import ImageData, Split, image_data
from sbp_tune.vision.decoded import decode_images

Sample = tuple[str, int]  # path below the root, label
_NAMED = 5  # unreadable files named in a message


class Files(NamedTuple):
    """The image files of "train", "val" and "test" below a folder, and the size to which they are decoded."""

    root: Path
    samples: Mapping[str, Sequence[Sample]]
    classes: tuple[str, ...]
    image_size: int | None


def load_files(config: DataConfig, files: Files) -> ImageData:
    """Decodes the files; InputError names those that cannot be read.

    All three splits are slices of one array, so that processes on a node share its memory. With
    data.skip_unreadable such files are left out with a warning, unless a split would lose a class.
    """
    root, samples, classes, image_size = files
    names = [name for part in samples.values() for name, _ in part]
    images, unreadable = decode_images(root, names, image_size)
    if unreadable:
        _report(config, names, unreadable)
    splits, start = {}, 0
    for part, pairs in samples.items():
        stop = start + len(pairs)
        labels = np.array([label for _, label in pairs], np.int64)
        pixels = images[start:stop]
        if lost := [index - start for index in unreadable if start <= index < stop]:
            _check_classes_remain(part, labels, np.delete(labels, lost), classes)
            pixels, labels = np.delete(pixels, lost, axis=0), np.delete(labels, lost)
        splits[part] = Split(torch.from_numpy(pixels), torch.from_numpy(labels))
        start = stop
    return image_data(splits["train"], splits["val"], splits["test"], classes)


def _report(config: DataConfig, names: Sequence[str], unreadable: Mapping[int, str]) -> None:
    listed = [f"{names[index]} ({reason})" for index, reason in list(unreadable.items())[:_NAMED]]
    more = f", ... and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
    count = f"{len(unreadable)} of {len(names)} images"
    if config.skip_unreadable:
        warnings.warn(f"data.root: left out {count} that cannot be read: {', '.join(listed)}{more}", stacklevel=2)
    else:
        raise InputError(
            f"data.root: {count} cannot be read: {', '.join(listed)}{more}; "
            "mend or remove them, or set data.skip_unreadable: true"
        )


def _check_classes_remain(part: str, before: np.ndarray, after: np.ndarray, classes: Sequence[str]) -> None:
    if lost := np.setdiff1d(before, after).tolist():
        gone = ", ".join(classes[label] for label in lost)
        raise InputError(f"data.skip_unreadable: no readable image is left in {part} of class {gone}")
