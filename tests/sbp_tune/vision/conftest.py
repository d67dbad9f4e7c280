from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sbp_tune.vision import data

Folders = Callable[..., Path]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small networks are faster so, above all on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees another's data, on disk or in the process."""
    data._load.cache_clear()
    monkeypatch.setenv("SBP_TUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Makes real images of noise: {class folder: how many}, below tmp_path/images."""

    def make(counts: Mapping[str, int], size: tuple[int, int] = (12, 12), extension: str = "png") -> Path:
        root = tmp_path / "images"
        generator = np.random.default_rng(0)
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / folder / f"{index:04d}.{extension}")
        return root

    return make
