"""The user's own images: one folder for each class, with or without train, val and test folders around them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from sbp_tune.config import DataConfig
from sbp_tune.errors import InputError
from sbp_tune.vision.data import ImageData, chosen_classes, data_root
from sbp_tune.vision.datasets._files import Files, Sample, load_files
from sbp_tune.vision.splits import stratified_parts

NEEDS = "data.root: a folder of images for each class, perhaps below train, val and test"
_SPLITS = ("train", "val", "test")


def load(config: DataConfig) -> ImageData:
    """Images uint8 [N, 3, H, W] of data.root, classes sorted by name.

    data.root holds class folders, or train/ and perhaps val/ and test/ which hold them; what is missing is
    split from the training images by the fractions. Hidden files, and files that are no images by their
    extension, are left out.
    """
    return load_files(config, files(config))


def files(config: DataConfig) -> Files:
    """What `load` decodes: the files of each split, of the chosen classes alone."""
    root = data_root(config)
    folders = _split_folders(root)
    classes = _common_classes(root, folders)
    samples = {part: _samples(root, folder, classes) for part, folder in folders.items()}
    if config.resplit:
        samples["train"] = sorted(samples["train"] + samples.pop("val", []))
    missing = {
        part: fraction
        for part, fraction in (("val", config.val_fraction), ("test", config.test_fraction))
        if part not in samples
    }
    if missing:
        whole = samples["train"]
        labels = np.array([label for _, label in whole], np.int64)
        parts = stratified_parts(labels, missing, config.split_seed, classes)
        samples |= {part: [whole[index] for index in indices] for part, indices in parts.items()}
    chosen = chosen_classes(config, classes)  # before anything is decoded: a thousand classes may not fit anywhere
    label_of = {classes.index(name): label for label, name in enumerate(chosen)}
    samples = {
        part: [(name, label_of[label]) for name, label in pairs if label in label_of] for part, pairs in samples.items()
    }
    return Files(root, samples, chosen, config.image_size)


def _split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split; all images count as training images where class folders lie at the top."""
    found = _subfolders(root)
    if "train" not in found or not _subfolders(root / "train"):
        return {"train": root}
    if unknown := [name for name in found if name not in _SPLITS]:
        raise InputError(f"data.root: {root}: found {', '.join(unknown)} beside train; allowed: val, test")
    return {part: root / part for part in _SPLITS if part in found}


def _common_classes(root: Path, folders: dict[str, Path]) -> tuple[str, ...]:
    classes = _subfolders(folders["train"])
    if not classes:
        state = "holds no class folders" if any(root.iterdir()) else "is empty"
        raise InputError(f"data.root: {root} {state}; needs a folder of images for each class")
    if len(classes) == 1:
        raise InputError(f"data.root: {folders['train']}: only one class, {classes[0]}; needs two or more")
    problems = []
    for part, folder in folders.items():
        names = set(_subfolders(folder))
        if lacking := sorted(set(classes) - names):
            problems.append(f"data.root: {folder}: class {', '.join(lacking)} of train is not in {part}")
        if unknown := sorted(names - set(classes)):
            problems.append(f"data.root: {folder}: class {', '.join(unknown)} of {part} is not in train")
    if problems:
        raise InputError(problems)
    return tuple(classes)


def _samples(root: Path, folder: Path, classes: tuple[str, ...]) -> list[Sample]:
    samples: list[Sample] = []
    problems = []
    for label, name in enumerate(classes):
        below = (folder / name).relative_to(root)
        files = sorted(
            file.name
            for file in os.scandir(folder / name)
            if file.name.lower().endswith(IMG_EXTENSIONS) and not file.name.startswith(".")
        )
        samples += [(f"{below}/{file}", label) for file in files]
        if nested := _subfolders(folder / name):  # perhaps splits by other names, taken for classes
            problems.append(
                f"data.root: {folder / name}: found folders ({', '.join(nested)}) where images of class {name} "
                "should be; allowed above class folders: train, val, test"
            )
        elif not files:
            allowed = ", ".join(IMG_EXTENSIONS)
            problems.append(f"data.root: {folder / name}: class {name} has no images; allowed: {allowed}")
    if problems:
        raise InputError(problems)
    return samples


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in os.scandir(folder) if path.is_dir() and not path.name.startswith("."))
