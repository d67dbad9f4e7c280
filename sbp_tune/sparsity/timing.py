"""Seconds that a piece of work takes, on a CPU or a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def least_seconds(*works: Callable[[], object], device: torch.device, repeats: int = 5) -> list[float]:
    """Least time of each work over interleaved repeats, after one run to warm up.

    The least, for what disturbs a measurement only ever adds to it; interleaved, so that a slow
    moment of the machine hits all works.
    """
    least = [float("inf")] * len(works)
    for repeat in range(repeats + 1):
        for place, work in enumerate(works):
            synchronize(device)
            start = time.perf_counter()
            work()
            synchronize(device)
            if repeat:
                least[place] = min(least[place], time.perf_counter() - start)
    return least


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
