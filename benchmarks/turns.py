"""An arm of a comparison in a process of its own: what it asks of its allocator is not given to the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import psutil
import torch

from benchmarks.loops import Loop
from benchmarks.machine import joules
from sbp_tune.sparsity.timing import synchronize

# It imports torch once for all arms; a fork of this process would have locks of threads that it has not.
_FORKSERVER = get_context("forkserver")
_FORKSERVER.set_forkserver_preload(["benchmarks.turns"])

LEFT_ALONE = {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"}
"""Of a process whose allocator is to stay as it is: what `keep_freed_memory` takes for its user's own setting."""


@dataclass
class Turn:
    """Seconds of one epoch of an arm, its accuracy after it, and its joules on a GPU that counts them.

    core_s: CPU seconds of the process and its children, which a busy machine disturbs less than the clock.
    """

    train_s: float
    val_s: float
    core_s: float
    val_accuracy: float | None
    joules: float | None

    @property
    def epoch_s(self) -> float:
        return self.train_s + self.val_s


@dataclass
class Arm:
    """A loop, made and run in its own process, and what was measured of it. environment: what is set there before."""

    name: str
    make: Callable[[], Loop]
    environment: Mapping[str, str] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)

    def start(self, device: torch.device) -> None:
        self._device = device
        self._pool = ProcessPoolExecutor(1, _FORKSERVER)
        self._pool.submit(_make, self.make, dict(self.environment), torch.get_num_threads()).result()

    def turn(self) -> Turn:
        self.turns.append(self._pool.submit(_turn, self._device).result())
        return self.turns[-1]

    def about(self) -> dict[str, Any]:
        """What the loop says of itself."""
        return self._pool.submit(_about).result()

    def close(self) -> None:
        self._pool.shutdown()


def take_turns(arms: Sequence[Arm], rounds: int) -> Iterator[tuple[int, Arm, Turn]]:
    """An uncounted turn of each arm, as round 0, then `rounds` counted ones, in changing order."""
    for round_ in range(rounds + 1):
        for arm in arms if round_ % 2 else arms[::-1]:
            yield round_, arm, arm.turn()


_loop: Loop  # of an arm's process


def _make(make: Callable[[], Loop], environment: dict[str, str], threads: int) -> None:
    global _loop
    os.environ.update(environment)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    _loop = make()


def _turn(device: torch.device) -> Turn:
    synchronize(device)
    energy, cores, start = joules(device), _core_seconds(), time.perf_counter()
    _loop.train()
    synchronize(device)
    middle = time.perf_counter()
    accuracy = _loop.validate()
    synchronize(device)
    end, core_s, after = time.perf_counter(), _core_seconds() - cores, joules(device)
    used = after - energy if energy is not None and after is not None else None
    return Turn(middle - start, end - middle, core_s, accuracy, used)


def _about() -> dict[str, Any]:
    return _loop.about()


def _core_seconds() -> float:
    """CPU seconds so far of this process and of its children that are alive: the DataLoader's workers."""
    me, seconds = psutil.Process(), 0.0
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds
