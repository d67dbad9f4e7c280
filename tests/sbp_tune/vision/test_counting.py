"""Counts without decoding are those of what is loaded."""

import numpy as np
import pytest
from PIL import Image
from small_datasets import accept_any_checksum, write_all_flowers, write_cifar

from sbp_tune.config import DataConfig
from sbp_tune.errors import InputError
from sbp_tune.vision import data, decoded
from sbp_tune.vision.counting import count_images
from sbp_tune.vision.data import load_dataset


@pytest.fixture
def root(tmp_path, monkeypatch):
    data._load.cache_clear()
    monkeypatch.setenv("SBP_TUNE_CACHE", str(tmp_path / "cache"))
    write_cifar("cifar10", tmp_path)
    accept_any_checksum("cifar10", monkeypatch)
    write_all_flowers(tmp_path)
    accept_any_checksum("flowers102", monkeypatch)
    for label in range(4):
        (tmp_path / "photos" / f"c{label}").mkdir(parents=True)
        for index in range(5 + label):
            Image.new("RGB", (9, 7), (label, index, 0)).save(tmp_path / "photos" / f"c{label}" / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize(
    "section",
    [
        {"name": "digits", "image_size": 16, "subset": 100},
        {"name": "digits", "classes": ("7", "1")},
        {"name": "cifar10", "val_fraction": 0.1, "class_count": 3},
        {"name": "flowers102", "image_size": 8, "resplit": True, "val_fraction": 0.34, "subset": 150},
        {"name": "image_folder"},
        {"name": "image_folder", "image_size": 8, "class_count": 2, "split_seed": 3},
    ],
)
def test_the_same_as_what_is_loaded(section, root, monkeypatch):
    where = root / "photos" if section["name"] == "image_folder" else root
    config = DataConfig(root=str(where), **section)
    with monkeypatch.context() as patch:
        patch.setattr(decoded, "_decode", lambda *_: pytest.fail("an image was decoded"))
        counts = count_images(config)
    loaded = load_dataset(config)
    assert counts.classes == loaded.classes
    for part in ("train", "val", "test"):
        labels = getattr(loaded, part).labels.numpy()
        assert np.bincount(labels, minlength=len(loaded.classes)).tolist() == getattr(counts, part).tolist()
    if config.subset is None and not (config.classes or config.class_count):
        assert counts.bytes == sum(getattr(loaded, part).images.numel() for part in ("train", "val", "test"))
    assert (counts.decoded is not None) is (section["name"] in ("flowers102", "image_folder"))
    assert not counts.is_decoded and count_images(config).is_decoded is (counts.decoded is not None)


@pytest.mark.parametrize("use", [count_images, load_dataset])
def test_missing_data_are_told_as_by_loading(use, tmp_path):
    with pytest.raises(InputError, match=r"data\.root: cifar10 is missing or damaged, expected in"):
        use(DataConfig(name="cifar10", root=str(tmp_path)))
