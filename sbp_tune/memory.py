"""Memory: the peak of this process since a run began, though it serves one run after another, and when none is left."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import torch

_PROC = Path("/proc/self")
_NONE_LEFT = (
    "out of memory",  # an accelerator's runtime, beside torch's own class
    "can't allocate memory",  # torch's allocator of host memory on Linux
    "not enough memory",  # the same elsewhere
    "std::bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
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
