"""Where the checkpoints of a study's trials lie: beside the rest of it, or on object storage.

Ray can write to object storage itself, but then its driver does too: it waits for it while trials run (a network that
swallows everything holds up each call for minutes), sends its state again for every second checkpoint, and reads it
back at the end. So its own files stay in the study's directory here, and only checkpoints go to the storage, each from
the machine that made it. A trial whose checkpoint cannot be written goes on: only after a crash would it be missed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback, Checkpoint

from sbp_tune.errors import StorageError
from sbp_tune.remote import Remote
from sbp_tune.study.working import remote_of

RAY = "ray"
"""The folder of a study with a folder for each attempt, by Ray's id."""

_NAMES = "checkpoint_"


def checkpoints_of(path: Path, attempt: str) -> list[str]:
    """Checkpoints of an attempt, newest first, as paths or URIs; a crash may have left the newest unfinished."""
    remote = remote_of(path)
    if remote is None:
        return [str(folder) for folder in sorted((path / RAY / attempt).glob(f"{_NAMES}*"), reverse=True)]
    folder = remote.child(RAY, attempt)
    return [folder.child(name).uri for name in reversed(folder.folders()) if name.startswith(_NAMES)]


def keeping_checkpoints(trainable: type, path: Path) -> type:
    """The trainable as it is, or one that keeps its checkpoints where the study lies on object storage."""
    remote = remote_of(path)
    return trainable if remote is None else _storing(trainable, remote.child(RAY).uri)


def _storing(trainable: Any, uri: str) -> type:
    class Storing(trainable):
        _storage: Any

        def save(self, checkpoint_dir: str | None = None) -> Any:
            storage, self._storage = self._storage, None  # Ray then leaves the checkpoint where it was made
            with tempfile.TemporaryDirectory(prefix="sbp-tune-") as folder:
                try:
                    result = super().save(folder)
                finally:
                    self._storage = storage
                storage.current_checkpoint_index += 1
                attempt, name = Remote(uri).child(storage.trial_dir_name), storage.checkpoint_dir_name
                try:
                    attempt.upload(Path(folder), name)
                except StorageError:
                    result.checkpoint = None  # for Ray there is none; UnsavedEpochs tells
                else:
                    filesystem, path = attempt.place
                    result.checkpoint = Checkpoint(f"{path}/{name}", filesystem)
            return result

    Storing.__name__ = Storing.__qualname__ = trainable.__name__
    return Storing


class UnsavedEpochs(Callback):
    """Tells, once for each time that it begins, that the checkpoints of trials cannot be written."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
        self._told = False

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles callbacks when it starts; a terminal cannot travel."""
        return {}

    def on_trial_save(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        saved = trial.latest_checkpoint_result
        if saved is not None and saved.metrics["training_iteration"] >= trial.last_result["training_iteration"]:
            self._told = False
        elif not self._told:
            self._told = True
            number = trial.config["lease"]["trial"]
            self._say(
                f"trial {number} could not write its checkpoint to {remote_of(self._path)} and goes on without; "
                "were the search killed now, it would run the epochs since the last one again"
            )
