"""Checkpoints of earlier attempts: a crash can have cut the newest short."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterable
from typing import Any


def newest_whole(checkpoints: Iterable[str], read: Callable[[str], dict[str, Any]]) -> dict[str, Any] | None:
    """What `read` makes of the first checkpoint, newest first, that it can read; None where there is none."""
    for checkpoint in checkpoints:
        try:
            return read(checkpoint)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            # A crash can cut a checkpoint short while it is written; the one before it is whole.
            warnings.warn(f"{checkpoint} cannot be read, going on from an older one: {error}", stacklevel=2)
    return None
