"""Opening torchvision's data sets, with one process at a time fetching what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from filelock import FileLock

from sbp_tune.config import DataConfig
from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.vision.data import data_root


def open_dataset(dataset: Callable[..., Any], config: DataConfig, folder: str, **options: Any) -> Any:
    """torchvision's `dataset` at data.root, where its files lie in `folder`.

    InputError where they are missing or damaged and data.download is false; SbpTuneError where they cannot
    be fetched.
    """
    root = data_root(config, may_be_absent=True)  # torchvision says what is missing in it
    try:
        return dataset(root, download=False, **options)
    except (RuntimeError, OSError) as error:  # what torchvision raises for missing and for damaged files
        if not config.download:
            raise InputError(
                f"data.root: {config.name} is missing or damaged, expected in {root / folder}; "
                "data.download: true fetches it"
            ) from error
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{config.name}.lock"):  # trials of one node would write over each other
            return dataset(root, download=True, **options)
    except (RuntimeError, OSError) as error:
        raise SbpTuneError(f"data.download: {config.name} cannot be fetched to {root}: {error}") from error
