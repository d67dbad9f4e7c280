"""Checkpoints of earlier attempts: a crash can have cut the newest short."""

from __future__ import annotations

import math
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sbp_tune.remote import Remote, is_uri


def newest_whole(
    checkpoints: Iterable[str],
    read: Callable[[str], dict[str, Any]],
    is_finished: Callable[[dict[str, Any]], bool] = lambda state: False,
    reported: float = math.inf,
) -> dict[str, Any] | None:
    """What `read` makes of the first checkpoint, newest first, that it can read and go on from; None without one.

    A driver that was lost may have taken the last results of its trials with it: those epochs run again. is_finished:
    whether a state is that of a whole run, which nothing goes on from. reported: the last epoch of which the study has
    a result; a state of a later one is gone on from only where there is no earlier one.
    checkpoints: folders, or their URIs on object storage. StorageError where that is out of reach: an older one, or
    none, would throw away what was trained.
    """
    ahead = None
    for checkpoint in checkpoints:
        try:
            with _here(checkpoint) as folder:
                state = read(folder)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            # A crash can cut a checkpoint short while it is written; the one before it is whole.
            warnings.warn(f"{checkpoint} cannot be read, going on from an older one: {error}", stacklevel=2)
            continue
        if not is_finished(state):
            if state["epoch"] <= reported:
                return state
            ahead = state
    return ahead


@contextmanager
def _here(checkpoint: str) -> Iterator[str]:
    if not is_uri(checkpoint):
        yield checkpoint
        return
    remote = Remote(checkpoint)
    with tempfile.TemporaryDirectory(prefix="sbp-tune-") as folder:
        for name in remote.files():
            remote.download(name, Path(folder, name))
        yield folder
