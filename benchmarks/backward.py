"""Time, FLOPs and memory of a training step with every estimator, against dense.

    python -m benchmarks.backward --model resnet18 --stem cifar --batch-size 32 --keep 0.25 --device cpu --json

All arms share one network, one batch and one optimizer, and take turns in every round, so that a slow
moment of the machine hits all of them; a ratio is to the dense step of the same round. Two rows are bounds
and no estimators: `forward` is a training-mode forward pass alone, `no_grad_weight` a step in which the
layers that may be sparse compute grad_input only. Of ratio f, it leaves f + p (1 - f) to whatever keeps p
of every grad_weight.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # torch's profiler talks; it must be told before the import

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.machine import joules, machine_name, peak_mb
from sbp_tune.config import ModelConfig, SparsityConfig, plugin_names
from sbp_tune.errors import InputError
from sbp_tune.host_memory import keep_freed_memory
from sbp_tune.sparsity import SparsityHandle, sparsify
from sbp_tune.sparsity.timing import synchronize
from sbp_tune.vision import build_model

Step = Callable[[], None]


@dataclass
class Bench:
    """One network, batch and optimizer, and how they are run."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    precision: str
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def step(self, handle: SparsityHandle) -> None:
        """A training step as in anybody's loop."""
        numbers = torch.arange(len(self.labels))
        kept = handle.select(numbers)
        whole = len(kept) == len(numbers)
        images, labels = (self.images, self.labels) if whole else (self.images[kept], self.labels[kept])
        self.optimizer.zero_grad(set_to_none=True)
        losses = functional.cross_entropy(self._logits(images), labels, reduction="none")
        handle.record(kept, losses)
        losses.mean().backward()
        handle.before_step(self.optimizer)
        self.optimizer.step()

    def forward(self) -> None:
        """A forward pass in training mode, with its graph."""
        self._logits(self.images)

    def _logits(self, images: Tensor) -> Tensor:
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        with torch.autocast(images.device.type, dtype, enabled=self.precision != "fp32"):
            return self.model(images)


@dataclass
class Arm:
    """An estimator and what was measured of it; its handle is attached only while it runs."""

    name: str
    config: SparsityConfig
    state: dict[str, Any] | None = None
    seconds: list[float] = field(default_factory=list)
    flops: int = 0
    peak_mb: float = 0.0
    joules: float | None = None
    dense_layers: int = 0


def arms(keep: float) -> list[Arm]:
    """Every estimator at the same keep fraction, the block of channels for one product and for both."""
    own: dict[str, dict[str, Any]] = {
        "variance": {"tau": 1 / keep - 1},
        "budget": {"rho": keep},
        "channel_topk": {"products": "both"},
    }
    found = []
    for name in ["dense", *(name for name in plugin_names("sparsity/estimators") if name != "dense")]:
        values = {"estimator": name, "p0": keep, **own.get(name, {})}
        found.append(Arm(name, SparsityConfig.model_validate(values)))
        if name == "channel_block":
            found.append(Arm("channel_block_both", SparsityConfig.model_validate({**values, "products": "both"})))
    no_turn = SparsityConfig(estimator="layer", p0=1e-9)  # it would take a billion steps
    return [*found, Arm("no_grad_weight", no_turn)]


def measure(bench: Bench, chosen: list[Arm], rounds: int, steps: int) -> list[dict[str, Any]]:
    """The table: one row per arm, `forward` last. Times are medians over rounds of `steps` steps each."""
    device = bench.images.device
    for arm in chosen:
        _attached(bench, arm, steps=3, measured=False)  # layers are timed, kernels chosen
        _attached(bench, arm, steps=1, measured=False, memory=True)
    forwards = []
    for _ in range(rounds):
        for arm in chosen:
            _attached(bench, arm, steps)
        forwards.append(_seconds(bench.forward, steps, device))
    dense = chosen[0]
    rows = [_row(arm, dense) for arm in chosen]
    return [*rows, {"estimator": "forward", **_ratios(forwards, dense.seconds)}]


def _attached(bench: Bench, arm: Arm, steps: int, measured: bool = True, memory: bool = False) -> None:
    """Runs steps of an arm with its handle attached, which goes on where it stopped."""
    handle = sparsify(bench.model, arm.config)
    if arm.state is not None:
        handle.load_state_dict(arm.state)
    handle.start_epoch(0, 1)
    device = bench.images.device
    if memory:
        bench.optimizer.zero_grad(set_to_none=True)  # gradients that the step would free are not its own
        arm.peak_mb = peak_mb(lambda: bench.step(handle), device)
    else:
        for _ in range(2):  # what an epoch does once, and what the last arm left in the allocator, are not of a step
            bench.step(handle)
        before, energy = handle.executed_flops, joules(device)
        seconds = _seconds(lambda: bench.step(handle), steps, device)
        if measured:
            arm.seconds.append(seconds)
            arm.flops += handle.executed_flops - before
            after = joules(device)
            if energy is not None and after is not None:
                arm.joules = (arm.joules or 0.0) + after - energy
    arm.state, arm.dense_layers = handle.state_dict(), len(handle.dense_layers)
    handle.remove()


def _seconds(step: Step, steps: int, device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize(device)
    return (time.perf_counter() - start) / steps


def _row(arm: Arm, dense: Arm) -> dict[str, Any]:
    row: dict[str, Any] = {"estimator": arm.name, **_ratios(arm.seconds, dense.seconds)}
    row |= {"flop_ratio": round(arm.flops / dense.flops, 4), "peak_mb": round(arm.peak_mb, 1)}
    row["dense_layers"] = arm.dense_layers
    if arm is dense:
        row["step_ms"] = round(1e3 * statistics.median(arm.seconds), 2)
    if arm.joules is not None and dense.joules:
        row["joule_ratio"] = round(arm.joules / dense.joules, 4)
    return row


def _ratios(seconds: list[float], dense: list[float]) -> dict[str, float]:
    """Ratios to the dense step of the same round."""
    ratios = [mine / theirs for mine, theirs in zip(seconds, dense, strict=True)]
    found = {"": statistics.median(ratios), "_min": min(ratios), "_max": max(ratios)}
    return {f"step_ratio{ending}": round(value, 4) for ending, value in found.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backward", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18", help="a network of sbp_tune")
    parser.add_argument("--stem", default="imagenet", choices=["imagenet", "cifar"])
    parser.add_argument("--image-size", type=int, help="pixels per side [32 with a cifar stem, else 224]")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--keep", type=float, default=0.25, help="keep fraction")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--threads", type=int, help="of the CPU [all]")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each arm in a round")
    parser.add_argument("--estimators", nargs="+", metavar="NAME", help="only these, beside dense")
    parser.add_argument("--json", action="store_true", help="print a JSON list in place of a table")
    parser.add_argument("-o", "--output", type=Path, help="folder for a JSON file named after machine and settings")
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    size = options.image_size or (32 if options.stem == "cifar" else 224)
    torch.manual_seed(0)
    keep_freed_memory()  # as in a trial
    device = torch.device(options.device)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    try:
        model = build_model(ModelConfig(name=options.model, stem=options.stem), 10, 3, size)
    except InputError as error:
        sys.exit(f"error: {error}")
    model.to(device, memory_format=layout)
    images = torch.randn(options.batch_size, 3, size, size, device=device).to(memory_format=layout)
    bench = Bench(model, images, torch.randint(0, 10, (options.batch_size,), device=device), options.precision)
    chosen = []
    for arm in arms(options.keep):
        if options.estimators and arm.name not in ("dense", "no_grad_weight", *options.estimators):
            continue
        try:
            sparsify(model, arm.config).remove()
            chosen.append(arm)
        except InputError as error:
            print(f"left out: {arm.name}: {error}", file=sys.stderr)
    rows = measure(bench, chosen, options.rounds, options.steps)
    text = json.dumps(rows, indent=1)
    print(text if options.json else _table(rows))
    if options.output:
        layout_name = "nhwc" if options.channels_last else "nchw"
        settings = [options.model, options.stem, f"{size}px", f"b{options.batch_size}", f"keep{options.keep:g}"]
        name = "_".join([machine_name(device), *settings, options.precision, layout_name])
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / f"{name}.json").write_text(text + "\n")


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'estimator':20}{'step':>7}{'min':>7}{'max':>7}{'FLOPs':>8}{'peak MB':>9}{'left dense':>12}"]
    for row in rows:
        lines.append(
            f"{row['estimator']:20}{row['step_ratio']:7.3f}{row['step_ratio_min']:7.3f}{row['step_ratio_max']:7.3f}"
            f"{row.get('flop_ratio', 0):8.3f}{row.get('peak_mb', 0):9.0f}{row.get('dense_layers', 0):12}"
        )
    return "\n".join([*lines, f"dense: {rows[0]['step_ms']} ms a step"])


if __name__ == "__main__":
    main()
