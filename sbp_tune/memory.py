"""Memory: the peak of this process since a run began, though it serves one run after another, and when none is left."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import psutil
import torch

from sbp_tune.config import TrainConfig
from sbp_tune.errors import OutOfMemory
from sbp_tune.host_memory import return_freed_memory

_PROC = Path("/proc/self")
_NONE_LEFT = (
    "out of memory",  # an accelerator's runtime, beside torch's own class
    "can't allocate memory",  # torch's allocator of host memory on Linux
    "not enough memory",  # the same elsewhere
    "std::bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class Run(Protocol):
    """What `says_what_does_not_fit` asks of a run."""

    config: TrainConfig
    device: torch.device


RunT = TypeVar("RunT", bound=Run)
P = ParamSpec("P")
R = TypeVar("R")


def says_what_does_not_fit(method: Callable[Concatenate[RunT, P], R]) -> Callable[Concatenate[RunT, P], R]:
    """An allocation that was refused as OutOfMemory, with the batch size and the peak; activations are free by then."""

    @wraps(method)
    def guarded(self: RunT, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Not within the handler: as long as the error lives, its frames hold the activations.
        raise _out_of_memory(self.config.data.batch_size, self.device)

    return guarded


def _out_of_memory(batch_size: int, device: torch.device) -> OutOfMemory:
    """What to say of it; what the broken step held goes back to the device, the rest with the run itself."""
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else peak_memory_gb()
    gc.collect()
    return_freed_memory()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return OutOfMemory(
        f"out of memory at batch size {batch_size}: peak {peak:.1f} GB of {memory_gb(device):.1f} GB; "
        "a smaller data.batch_size, data.image_size or model needs less"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation was refused; torch has a class for it on a GPU only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NONE_LEFT)


def memory_gb(device: torch.device) -> float:
    """GB (1e9 bytes) that the device has in all."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory) / 1e9
    return float(psutil.virtual_memory().total) / 1e9


def reset_peak_memory() -> None:
    """Forgets the peak so far, where the system can (Linux)."""
    return_freed_memory()  # what an earlier run left is not this one's
    with contextlib.suppress(OSError):  # another system, or a container that forbids it: then the process's peak
        (_PROC / "clear_refs").write_text("5")


def peak_memory_gb() -> float:
    """GB (1e9 bytes) at the highest since `reset_peak_memory`; on other systems than Linux, at present."""
    try:
        lines = (_PROC / "status").read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return float(psutil.Process().memory_info().rss) / 1e9
    return kilobytes * 1024 / 1e9
