"""Host memory that a step has freed stays with the process for the next step.

glibc gives large blocks back to the system at once and asks for them anew, and the system clears every page again: a
step of ResNet-18 (CIFAR stem, batch 128) faults 200,000 pages, a tenth of its time. A GPU's activations are not here.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory(environ: Mapping[str, str] = os.environ) -> bool:
    """Has glibc keep what is freed, for the whole process; False where it is not there, or not ours to set.

    Whoever has set glibc's allocator by the environment (MALLOC_*, GLIBC_TUNABLES) keeps that.
    """
    if any(name.startswith("MALLOC_") for name in environ) or "glibc.malloc" in environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = _of_glibc("mallopt")
    if mallopt is None:
        return False
    return mallopt(_MMAP_MAX, 0) == 1 and mallopt(_TRIM_THRESHOLD, _NEVER) == 1


def return_freed_memory() -> None:
    """Gives back what is kept and in nobody's use: between two runs, others may want it."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library where that is glibc: others have some of the names, for something else."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # not a system with one C library for all
        return None
    return getattr(library, name, None) if hasattr(library, "gnu_get_libc_version") else None
