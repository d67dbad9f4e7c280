"""One epoch of a trial against the loop that everybody writes, on the same images, network and optimizer.

    python -m benchmarks.trial --model resnet18 --data cifar10-images --data-root ~/cifar10-images

Arms: `plain` is torchvision and a DataLoader as in PyTorch's own examples, `plain_amp` the same with autocast in
bfloat16 and channels-last, `sbp_tune` ours with the shipped defaults, `sbp_tune_...` ours with other settings, `bare`
the training step alone on one synthetic batch. They take turns, an epoch each in a round, so that a slow moment of the
machine hits all of them, and each goes on training its own copy of the network in a process of its own; the first
round is not counted. An epoch is a pass over the training images and one over the validation images.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision

from benchmarks.loops import SHIPPED, Bare, Loop, Ours, image_folders, plain_of
from benchmarks.machine import machine_name
from benchmarks.turns import LEFT_ALONE, Arm, take_turns
from sbp_tune.config import TrainConfig
from sbp_tune.errors import InputError
from sbp_tune.numerics import resolve_device
from sbp_tune.profiling import ProfiledTraining
from sbp_tune.vision import load_dataset

OURS: dict[str, dict[str, Any]] = {
    "sbp_tune": SHIPPED,
    "sbp_tune_contiguous": {"precision": "fp32", "memory_format": "contiguous"},
    "sbp_tune_channels_last": {"precision": "fp32", "memory_format": "channels_last"},
    "sbp_tune_bf16": {"precision": "bf16", "memory_format": "channels_last"},
    "sbp_tune_memory_returned": SHIPPED,
    "sbp_tune_cuda_graphs": {**SHIPPED, "cuda_graphs": True},  # on a CPU the same as shipped
}
"""Settings of our arms."""
ENVIRONMENTS = {"sbp_tune_memory_returned": LEFT_ALONE}
ARMS = ("plain", "plain_amp", *OURS, "bare")


def arms(options: argparse.Namespace, root: Path, device: torch.device) -> list[Arm]:
    """The chosen arms, each with the same weights at its start."""
    base: dict[str, Any] = {
        "data": {"name": "image_folder", "root": str(root), "batch_size": options.batch_size, "augment": "crop_flip"},
        "model": {"name": options.model, "stem": options.stem},
        "optimizer": {"name": "sgd", "lr": options.lr, "momentum": 0.9, "weight_decay": 5e-4},
        "lr_schedule": {"name": "constant"},
        "epochs": options.rounds + 1,
        "device": device.type,
    }
    if options.image_size:
        base["data"]["image_size"] = options.image_size
    default = TrainConfig.model_validate(base)
    data = load_dataset(default.data)
    size = data.train.images.shape[-1]
    weights = ProfiledTraining(default).model.state_dict()
    workers = os.cpu_count() or 1 if options.workers is None else options.workers
    plain = partial(plain_of, default, weights, root, data, workers)
    ours = {name: partial(Ours, TrainConfig.model_validate({**base, **own})) for name, own in OURS.items()}
    bare = partial(Bare, TrainConfig.model_validate({**base, **SHIPPED}), len(data.train), data.num_classes, size)
    made: dict[str, Callable[[], Loop]] = {"plain": plain, "plain_amp": partial(plain, fast=True), **ours, "bare": bare}
    names = ("plain", *(name for name in options.arms if name != "plain"))
    return [Arm(name, made[name], ENVIRONMENTS.get(name, {})) for name in names]


def row_of(arm: Arm, plain: Arm, images: int) -> dict[str, Any]:
    """Medians over the counted epochs, with the least and the most; a speed-up is over the plain epoch of its round."""
    counted, theirs = arm.turns[1:], plain.turns[1:]
    row: dict[str, Any] = {"arm": arm.name, **_spread("images_per_second", [images / turn.train_s for turn in counted])}
    if arm.name == "bare":
        return row
    ratios = [other.epoch_s / mine.epoch_s for mine, other in zip(counted, theirs, strict=True)]
    row |= _spread("speedup", ratios) | _spread("epoch_s", [turn.epoch_s for turn in counted])
    core_ratios = [mine.core_s / other.core_s for mine, other in zip(counted, theirs, strict=True)]
    row |= _spread("core_s_ratio", core_ratios) | _spread("core_s", [turn.core_s for turn in counted])
    row["val_accuracy"] = [turn.val_accuracy for turn in arm.turns]
    if all(turn.joules is not None for turn in counted):
        row |= _spread("joules_per_image", [(turn.joules or 0.0) / images for turn in counted])
    return row | arm.about()


def _spread(name: str, values: list[float]) -> dict[str, float]:
    found = {"": statistics.median(values), "_min": min(values), "_max": max(values)}
    return {f"{name}{ending}": round(value, 4) for ending, value in found.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trial", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet18", help="a network of sbp_tune")
    parser.add_argument("--stem", default="cifar", choices=["imagenet", "cifar"])
    parser.add_argument("--data", default="cifar10-images", help="name of the images, for the result")
    parser.add_argument(
        "--data-root", type=Path, help="train/ and test/ with a folder of images for each class [$SBP_TUNE_CIFAR10]"
    )
    parser.add_argument("--image-size", type=int, help="pixels per side [as stored]")
    parser.add_argument("--images", type=int, default=5000, help="training images, the first of each class")
    parser.add_argument("--val-images", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=3, help="counted epochs of each arm; one more comes before")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["plain", "plain_amp", "sbp_tune"], metavar="ARM")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--threads", type=int, help="of the CPU [all]")
    parser.add_argument("--workers", type=int, help="of the DataLoader [one for each core]")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.add_argument("-o", "--output", type=Path, help="folder for a JSON file named after machine and settings")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        device = resolve_device(options.device)
        with image_folders(options.data_root, options.images, options.val_images) as root:
            start = time.perf_counter()
            chosen = arms(options, root, device)
            for arm in chosen:
                arm.start(device)
            set_up_s = time.perf_counter() - start
            for round_, arm, turn in take_turns(chosen, options.rounds):
                accuracy = "" if turn.val_accuracy is None else f", accuracy {100 * turn.val_accuracy:.1f} %"
                print(f"epoch {round_ + 1} of {arm.name}: {turn.epoch_s:.2f} s{accuracy}", file=sys.stderr)
            rows = [row_of(arm, chosen[0], options.images) for arm in chosen]
            for arm in chosen:
                arm.close()
    except InputError as error:
        sys.exit(f"error: {error}")
    result = {**_settings(options, device), "set_up_s": round(set_up_s, 2), "arms": rows}
    text = json.dumps(result, indent=1)
    print(text if options.json else _table(rows))
    if options.output:
        name = "_".join(["trial", machine_name(device), options.model, options.stem, options.data])
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / f"{name}.json").write_text(text + "\n")


def _settings(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    names = ("model", "stem", "data", "images", "val_images", "batch_size", "lr", "rounds")
    capabilities = []
    with suppress(AttributeError, RuntimeError):
        capabilities = [name for name, has in torch.cpu.get_capabilities().items() if has is True]
    return {
        "device": machine_name(device),
        "cpu_capabilities": sorted(capabilities),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        **{name: getattr(options, name) for name in names},
    }


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'arm':30}{'images/s':>10}{'speed-up':>10}{'min':>7}{'max':>7}{'core s':>8}{'data':>8}{'accuracy':>10}"]
    for row in rows:
        line = f"{row['arm']:30}{row['images_per_second']:10.1f}"
        if "speedup" in row:
            line += (
                f"{row['speedup']:10.2f}{row['speedup_min']:7.2f}{row['speedup_max']:7.2f}{row['core_s_ratio']:8.2f}"
            )
            shares = row.get("shares_of_training")
            line += f"{100 * shares['data']:7.2f}%" if shares else f"{'':8}"
            line += f"{100 * row['val_accuracy'][-1]:9.1f}%"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
