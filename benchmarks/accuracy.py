"""Do our loop and the loop that everybody writes reach the same accuracy after the same epochs? Seeds, and an interval.

    python -m benchmarks.accuracy --model small_resnet --data-root ~/cifar10-images

Each seed gives both a network of its own, the same for both; then each draws its own order of images and crops. The
learning rate falls by a cosine over the epochs. No speed is measured here: see `benchmarks.trial`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks.loops import SHIPPED, Ours, image_folders, plain_of
from benchmarks.machine import machine_name
from sbp_tune.config import TrainConfig
from sbp_tune.errors import InputError
from sbp_tune.numerics import resolve_device
from sbp_tune.optimizers import lr_factor
from sbp_tune.vision import load_dataset


def accuracies(base: dict[str, Any], root: Path, seed: int, workers: int) -> dict[str, float]:
    """Accuracy on the validation images after the last epoch, by loop."""
    config = TrainConfig.model_validate({**base, **SHIPPED, "seed": seed})
    ours = Ours(config)
    plain = plain_of(config, ours.training.model.state_dict(), root, load_dataset(config.data), workers)
    torch.manual_seed(seed)
    for epoch in range(config.epochs):
        plain.loop.set_lr(config.optimizer.lr * lr_factor(config.lr_schedule, epoch, config.epochs))
        plain.train()
        ours.train()
    found = {"plain": plain.validate(), "sbp_tune": ours.validate()}
    ours.training.close()
    print(f"seed {seed}: " + ", ".join(f"{name} {100 * value:.2f} %" for name, value in found.items()), file=sys.stderr)
    return found


def summary(by_seed: list[dict[str, float]]) -> dict[str, Any]:
    """Means and standard errors in percent, and the paired difference (ours less plain) with its 95 % interval."""
    values = {name: 100 * np.array([row[name] for row in by_seed]) for name in ("plain", "sbp_tune")}
    values["difference"] = values["sbp_tune"] - values["plain"]
    errors = {name: float(value.std(ddof=1) / len(value) ** 0.5) for name, value in values.items()}
    half = float(stats.t.ppf(0.975, len(by_seed) - 1)) * errors["difference"]
    mean = float(values["difference"].mean())
    return {
        "mean": {name: round(float(value.mean()), 3) for name, value in values.items()},
        "standard_error": {name: round(error, 3) for name, error in errors.items()},
        "difference_interval": [round(mean - half, 3), round(mean + half, 3)],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="small_resnet", help="a network of sbp_tune")
    parser.add_argument("--stem", default="imagenet", choices=["imagenet", "cifar"])
    parser.add_argument("--data-root", type=Path, help="as for benchmarks.trial [$SBP_TUNE_CIFAR10]")
    parser.add_argument("--images", type=int, default=4000, help="training images, the first of each class")
    parser.add_argument("--val-images", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="of the DataLoader")
    parser.add_argument("-o", "--output", type=Path, help="folder for a JSON file named after machine and network")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(arguments)
    if options.seeds < 2:
        sys.exit(f"error: --seeds: found {options.seeds}; an interval needs 2 or more")
    try:
        device = resolve_device(options.device)
        with image_folders(options.data_root, options.images, options.val_images) as root:
            base = {
                "data": {
                    "name": "image_folder",
                    "root": str(root),
                    "batch_size": options.batch_size,
                    "augment": "crop_flip",
                },
                "model": {"name": options.model, "stem": options.stem},
                "optimizer": {"name": "sgd", "lr": options.lr, "momentum": 0.9, "weight_decay": 5e-4},
                "epochs": options.epochs,
                "device": device.type,
            }
            by_seed = [accuracies(base, root, seed, options.workers) for seed in range(options.seeds)]
    except InputError as error:
        sys.exit(f"error: {error}")
    settings = {name: getattr(options, name) for name in ("model", "stem", "images", "batch_size", "lr", "epochs")}
    result = {"device": machine_name(device), "torch": torch.__version__, **settings, **summary(by_seed)}
    text = json.dumps({**result, "by_seed": by_seed}, indent=1)
    print(text)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        name = f"accuracy_{machine_name(device)}_{options.model}.json"
        (options.output / name).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
