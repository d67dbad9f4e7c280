"""Peak resident memory of this process since a run began, though processes serve one run after another."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

_PROC = Path("/proc/self")


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
