"""One driver at a time on a study; the lock goes with the process, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sbp_tune.errors import SbpTuneError
from sbp_tune.study.working import CONFIRM, read_mark

_FILE = ".lock"
_kept: dict[Path, dict[str, Any]] = {}


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """SbpTuneError where another process runs the study in this directory, or where it lies for other machines."""
    from sbp_tune.study.mirror import mirrored  # which needs the storage, and that this

    with (path / _FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SbpTuneError(f"{path}: another process runs this study at present") from None
        _kept[path.resolve()] = {}
        try:
            with mirrored(path):
                yield
        finally:
            del _kept[path.resolve()]


def kept_by_writer(path: Path) -> dict[str, Any] | None:
    """What this process keeps of a study for as long as it is its only writer; None where it is not."""
    return _kept.get(path.resolve())


def is_in_use(path: Path) -> bool:
    """Whether a process runs the study, here or, when it was fetched from object storage, on another machine."""
    mark = read_mark(path) or (read_mark(path.parent) if path.name == CONFIRM else None)
    return is_locked(path) or (mark is not None and mark.live)


def is_locked(path: Path) -> bool:
    """Whether a process of this machine runs the study in this directory."""
    try:
        with (path / _FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
