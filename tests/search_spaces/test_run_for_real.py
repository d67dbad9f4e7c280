"""Every shipped study file trains: each network of each, dense and sparse, on small data of the same shapes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_datasets import accept_any_checksum, write_all_flowers, write_cifar

from sbp_tune.config import check_config
from sbp_tune.study.file import Study, load_study_file
from sbp_tune.training import Training
from sbp_tune.vision import data
from search_spaces import shipped_spaces

SPACES = shipped_spaces()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all data sets, some images each."""
    data._load.cache_clear()
    monkeypatch.setenv("SBP_TUNE_CACHE", str(tmp_path / "cache"))
    for name in ("cifar10", "cifar100"):
        write_cifar(name, tmp_path)
        accept_any_checksum(name, monkeypatch)
    write_all_flowers(tmp_path)
    accept_any_checksum("flowers102", monkeypatch)
    generator = np.random.default_rng(0)
    for label in range(3):
        (tmp_path / "imagenet" / f"n0{label}").mkdir(parents=True)
        for index in range(5):
            pixels = generator.integers(0, 256, (230, 250, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "imagenet" / f"n0{label}" / f"{index}.jpg")
    return tmp_path


def configs(study: Study) -> Iterator[dict[str, Any]]:
    """Of each network on each data set: a dense config, and a sparse one where the file has such fixed points."""
    seen = set()
    examples = [
        study.space.example(parameter.key, value)
        for parameter in study.space.parameters
        for value in parameter.domain.samples()
    ]
    for point in (*study.baselines, *(point for point in study.grid if point), *examples):
        config = study.train_config(point)
        estimator = config["sparsity"]["estimator"]
        kind = (config["model"]["name"], config["data"]["name"], estimator == "dense" or estimator)
        if kind not in seen:
            seen.add(kind)
            yield config


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_two_epochs_of_every_network_and_estimator(name: str, root: Path) -> None:
    tried = 0
    for config in configs(load_study_file(SPACES[name])):
        if config["data"]["name"] != "digits":
            folder = root / "imagenet" if config["data"]["name"] == "image_folder" else root
            config["data"] |= {"root": str(folder), "subset": None}
        if config["data"]["class_count"]:
            config["data"]["class_count"] = 2
        if config["data"]["name"] == "flowers102":
            config["data"] |= {"subset": 102, "val_fraction": 0.34, "image_size": 64}
        if config["data"]["name"] == "cifar100":
            config["data"]["subset"] = 100
        config |= {"epochs": 2, "device": "cpu", "cpu_threads": 2}
        config["data"]["batch_size"] = min(8, config["data"]["batch_size"])
        config["lr_schedule"]["warmup_epochs"] = 0
        training = Training(check_config(config, name))
        rows = [training.run_epoch() for _ in range(2)]
        training.close()
        assert training.finished and np.isfinite([row["loss"] for row in rows]).all(), config
        assert rows[-1]["kwh"] > rows[0]["kwh"] > 0
        tried += 1
    assert tried >= 2
