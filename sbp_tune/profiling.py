"""Where the time of an epoch goes: data, forward, backward, optimizer, validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sbp_tune.training import Training
from sbp_tune.vision.data import Split

if TYPE_CHECKING:
    from rich.table import Table

STAGES = {
    "data": "index, transfer, augment, normalise",
    "forward": "forward pass and loss",
    "backward": "backward pass",
    "optimizer": "sparsity's selection and the update",
    "validation": "pass over the validation split, metrics",
    "other": "data order, learning rate, metering",
}
_CLOCKS = {"cuda": "CUDA events, no waiting per step", "cpu": "host clock"}


@dataclass(frozen=True)
class EpochProfile:
    """One epoch of a run. seconds: of the whole epoch; stages: seconds by the names of STAGES, which add up to it.

    steps: optimizer steps; images_per_second: training images over the time of the epoch without validation.
    """

    epoch: int
    device: str
    clock: str
    warmed_up: bool
    steps: int
    seconds: float
    stages: dict[str, float]
    images_per_second: float

    @property
    def shares(self) -> dict[str, float]:
        """Part of the epoch by stage; they add up to 1."""
        return {name: seconds / self.seconds for name, seconds in self.stages.items()}

    def as_dict(self) -> dict[str, Any]:
        """Plain data, with the shares."""
        return {**asdict(self), "shares": self.shares}

    def table(self) -> Table:
        """For the terminal."""
        from rich.table import Table

        warmth = "after a warm-up epoch" if self.warmed_up else "the first: kernels were still being chosen"
        table = Table(title=f"Epoch {self.epoch} ({warmth}) on {self.device}, by {self.clock}", title_justify="left")
        table.add_column("stage")
        table.add_column("what", overflow="fold")
        table.add_column("share", justify="right")
        table.add_column("s", justify="right")
        for name, what in STAGES.items():
            table.add_row(name, what, f"{100 * self.shares[name]:.1f} %", f"{self.stages[name]:.3f}")
        speed = f"{self.images_per_second:.0f} training images/s in {self.steps} steps"
        table.add_row("epoch", speed, "100 %", f"{self.seconds:.3f}", style="bold")
        return table


class ProfiledTraining(Training):
    """A Training that watches its second epoch, or its only one. Its results are those of the plain one, bit for bit.

    It times the methods of a step from outside, so the plain loop pays nothing. On a GPU an event goes into the
    stream at both ends of each, and they are read after the epoch: nothing waits for the device.
    """

    profile: EpochProfile | None = None
    _begun = 0  # epochs that this process has begun
    _spans: list[tuple[str, Callable[[], float]]] | None = None  # while an epoch is watched: stage, its seconds

    def run_epoch(self, validate: bool = True) -> dict[str, Any]:
        self._begun += 1
        watched = self._begun == min(2, self.config.epochs)
        self._spans = [] if watched else None
        row = super().run_epoch(validate)
        if self._spans is not None:
            self.profile = self._profile(self._spans, row["epoch_time_s"])
            self._spans = None
        return row

    def evaluate(self, split: Split) -> dict[str, float]:
        with self._span("validation"):
            return super().evaluate(split)

    def _batch(self, batch: Tensor, augmenting: torch.Generator) -> tuple[Tensor, Tensor]:
        with self._span("data"):
            return super()._batch(batch, augmenting)

    def _forward(self, x: Tensor, y: Tensor) -> Tensor:
        with self._span("forward"):
            return super()._forward(x, y)

    def _backward(self, losses: Tensor) -> None:
        with self._span("backward"):
            super()._backward(losses)

    def _update(self) -> None:
        with self._span("optimizer"):
            super()._update()

    @contextmanager
    def _span(self, stage: str) -> Iterator[None]:
        if self._spans is None:
            yield
        elif self._on_gpu:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self._spans.append((stage, lambda: start.elapsed_time(end) / 1000))
        else:
            began = time.perf_counter()
            yield
            took = time.perf_counter() - began
            self._spans.append((stage, lambda: took))

    def _profile(self, spans: list[tuple[str, Callable[[], float]]], seconds: float) -> EpochProfile:
        self._synchronize()
        stages = dict.fromkeys(STAGES, 0.0)
        for stage, read in spans:
            stages[stage] += read()
        stages["other"] = seconds - sum(stages.values())
        steps = sum(stage == "optimizer" for stage, _ in spans)
        training = seconds - stages["validation"]
        return EpochProfile(
            epoch=self.epoch,
            device=self.device_name,
            clock=_CLOCKS[self.device.type],
            warmed_up=self._begun > 1,
            steps=steps,
            seconds=seconds,
            stages=stages,
            images_per_second=len(self.data.train) / training,
        )
