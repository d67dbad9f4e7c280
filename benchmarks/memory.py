"""Peak memory of a dense training step of each model at the papers' batch sizes, against a T4's 16 GB.

    python -m benchmarks.memory --json

Computed from the sizes of the tensors that are alive at once (torch's MemTracker on tensors without content), not
measured on a GPU: nothing runs, and no GPU is needed. Beside it a GPU holds its context (some hundred MB), cuDNN's
workspaces and what its allocator keeps in pieces.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import functional

from sbp_tune.config import ModelConfig, OptimizerConfig
from sbp_tune.optimizers import build_optimizer
from sbp_tune.vision import build_model

T4_GB = 16.0
_ARGS: dict[str, dict[str, Any]] = {"googlenet": {"init_weights": False}}  # its draws look at what they drew


class Setting(NamedTuple):
    """A model as a paper trains it."""

    paper: int
    model: str
    stem: str
    image_size: int
    batch_size: int
    optimizer: str
    classes: int


SETTINGS = (
    *(Setting(2024, name, "imagenet", 224, 32, "adam", 1000) for name in ("alexnet", "resnet18", "vgg19")),
    *(
        Setting(2025, name, *data)
        for name in ("resnet18", "densenet121", "googlenet", "mobilenet_v2")
        for data in (("cifar", 32, 128, "sgd", 10), ("imagenet", 224, 32, "sgd", 102))
    ),
)


def peak(setting: Setting, precision: str = "fp32") -> dict[str, float]:
    """GB (1e9 bytes) at the highest of the second training step: `total`, and by what they hold."""
    with FakeTensorMode():
        torch.manual_seed(0)
        model = build_model(
            ModelConfig(name=setting.model, stem=setting.stem, args=_ARGS.get(setting.model, {})),
            setting.classes,
            3,
            setting.image_size,
        )
        optimizer = build_optimizer(model, OptimizerConfig(name=setting.optimizer))
        images = torch.randn(setting.batch_size, 3, setting.image_size, setting.image_size)
        labels = torch.zeros(setting.batch_size, dtype=torch.int64)
        tracker = MemTracker()
        tracker.track_external(model, optimizer, images, labels)
        for step in range(2):  # the first makes the optimizer's state
            with tracker:
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                    loss = functional.cross_entropy(model(images), labels)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if step == 0:
                tracker.reset_mod_stats()
        found: dict[Any, Any] = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    return {str(getattr(name, "value", name)).lower(): count / 1e9 for name, count in found.items()}


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.add_argument("-o", "--output", type=Path, help="folder for peak_memory.json")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for setting in SETTINGS:
        if options.models and setting.model not in options.models:
            continue
        parts = {name: round(value, 3) for name, value in peak(setting).items()}
        rows.append({**setting._asdict(), "peak_gb": parts.pop("total"), "of_it": parts})
    text = json.dumps({"computed": "from tensor sizes", "torch": torch.__version__, "rows": rows}, indent=1)
    print(text if options.json else _table(rows))
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "peak_memory.json").write_text(text + "\n")


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'paper':6}{'model':14}{'px':>5}{'batch':>7}{'peak GB':>9}{'of a T4':>9}"]
    for row in rows:
        share = f"{100 * row['peak_gb'] / T4_GB:.0f} %"
        lines.append(
            f"{row['paper']:<6}{row['model']:14}{row['image_size']:5}{row['batch_size']:7}{row['peak_gb']:9.2f}{share:>9}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
