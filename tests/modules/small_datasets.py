"""Small files in the formats of the public data sets."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image
from scipy.io import savemat

CLASSES = {"cifar10": 10, "cifar100": 100}
PER_CLASS = 5


def write_cifar(name: str, root: Path) -> None:
    """Small CIFAR files; the label key and file names are those of the originals."""
    dataset = getattr(torchvision.datasets, name.upper())
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    count = CLASSES[name] * PER_CLASS
    for file, _ in dataset.train_list + dataset.test_list:
        labels = np.tile(np.arange(CLASSES[name]), PER_CLASS).tolist()
        pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        key = "labels" if name == "cifar10" else "fine_labels"
        (folder / file).write_bytes(pickle.dumps({"data": pixels, key: labels}))
    meta = {dataset.meta["key"]: [f"class {index}" for index in range(CLASSES[name])]}
    (folder / dataset.meta["filename"]).write_bytes(pickle.dumps(meta))


def accept_any_checksum(name: str, patch: pytest.MonkeyPatch) -> None:
    """Small files cannot have the originals' checksums; all else of torchvision's reader stays."""
    if name == "flowers102":
        files = torchvision.datasets.Flowers102._file_dict
        patch.setattr(torchvision.datasets.Flowers102, "_file_dict", {key: (files[key][0], None) for key in files})
        return
    dataset = getattr(torchvision.datasets, name.upper())
    for attribute in ("train_list", "test_list"):
        patch.setattr(dataset, attribute, [[file, None] for file, _ in getattr(dataset, attribute)])
    patch.setattr(dataset, "meta", dataset.meta | {"md5": None})


def write_flowers(root: Path) -> None:
    folder = root / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for index in range(1, 13):
        image = Image.new("RGB", (30 + index, 40), (20 * index, 0, 0))
        image.save(folder / "jpg" / f"image_{index:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2] * 6])})
    savemat(folder / "setid.mat", {"trnid": [[1, 2, 3, 4]], "valid": [[5, 6]], "tstid": [[7, 8, 9, 10, 11, 12]]})


def write_all_flowers(root: Path, size: int = 16) -> None:
    """Two training, one validation and one test image of each of the 102 classes."""
    folder = root / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for index in range(1, 409):
        Image.new("RGB", (size, size), (index % 256, index // 256, 0)).save(folder / "jpg" / f"image_{index:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1 + index % 102 for index in range(408)]])})
    ids = np.arange(1, 409)
    savemat(folder / "setid.mat", {"trnid": [ids[:204]], "valid": [ids[204:306]], "tstid": [ids[306:]]})
