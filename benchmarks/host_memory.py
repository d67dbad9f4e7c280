"""What it costs that glibc gives freed memory back: dense steps on a CPU with and without `keep_freed_memory`.

    python -m benchmarks.host_memory -o benchmarks/results

Two processes for each network, which take turns; one keeps what its steps free, as every trial does, and the other is
left as glibc is.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from benchmarks.machine import machine_name
from benchmarks.turns import LEFT_ALONE, Arm, take_turns
from sbp_tune.config import ModelConfig, OptimizerConfig
from sbp_tune.host_memory import keep_freed_memory
from sbp_tune.optimizers import build_optimizer
from sbp_tune.vision import build_model

NETWORKS = [
    ("small_resnet", "imagenet", 16, 128),
    ("resnet18", "cifar", 32, 32),
    ("resnet18", "cifar", 32, 128),
    ("resnet18", "imagenet", 224, 32),
    ("vgg19", "imagenet", 32, 128),
    ("mobilenet_v2", "cifar", 32, 128),
    ("densenet121", "cifar", 32, 32),
    ("googlenet", "cifar", 32, 32),
    ("alexnet", "imagenet", 224, 32),
]
"""Name, stem, pixels, batch size."""


class Steps:
    """Dense steps on one synthetic batch, channels-last."""

    def __init__(self, name: str, stem: str, pixels: int, batch: int, steps: int) -> None:
        self._keeps = keep_freed_memory()
        self._model = build_model(ModelConfig(name=name, stem=stem), 10, 3, pixels)
        self._model.to(memory_format=torch.channels_last)
        self._x = torch.randn(batch, 3, pixels, pixels).to(memory_format=torch.channels_last)
        self._y = torch.randint(0, 10, (batch,))
        self._optimizer = build_optimizer(self._model, OptimizerConfig(lr=1e-4))
        self._steps = steps
        self._faults: list[float] = []

    def train(self) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(self._steps):
            functional.cross_entropy(self._model(self._x), self._y).backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        self._faults.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / self._steps)

    def validate(self) -> None:
        return None

    def about(self) -> dict[str, Any]:
        """Pages that the system cleared for a step; most memory of the process, in MB."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        return {"keeps": self._keeps, "page_faults": round(statistics.median(self._faults[1:])), "peak_mb": round(peak)}


def compare(network: tuple[str, str, int, int], steps: int, rounds: int) -> dict[str, Any]:
    """Medians over the rounds: milliseconds of a step, and the ratio of the two in a round."""
    device = torch.device("cpu")
    make = partial(Steps, *network, steps)
    arms = [Arm("returned", make, LEFT_ALONE), Arm("kept", make)]
    for arm in arms:
        arm.start(device)
    for _ in take_turns(arms, rounds):
        pass
    row: dict[str, Any] = dict(zip(("model", "stem", "image_size", "batch_size"), network, strict=True))
    times = {arm.name: [turn.train_s / steps for turn in arm.turns[1:]] for arm in arms}
    ratios = [kept / returned for kept, returned in zip(times["kept"], times["returned"], strict=True)]
    row |= {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
    for arm in arms:
        row |= {f"{arm.name}_ms": 1e3 * statistics.median(times[arm.name])}
        row |= {f"{arm.name}_{name}": value for name, value in arm.about().items()}
        arm.close()
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host_memory", description=__doc__.splitlines()[0])
    names = sorted({name for name, *_ in NETWORKS})
    parser.add_argument("--models", nargs="+", choices=names, default=names, metavar="NAME", help="only these")
    parser.add_argument("--steps", type=int, default=4, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5, help="counted turns of each; one more comes before")
    parser.add_argument("-o", "--output", type=Path, help="folder for a JSON file named after the machine")
    options = parser.parse_args(arguments)
    rows = []
    for network in NETWORKS:
        if network[0] in options.models:
            rows.append(compare(network, options.steps, options.rounds))
            print(json.dumps(rows[-1]), flush=True)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        path = options.output / f"host_memory_{machine_name(torch.device('cpu'))}.json"
        path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
