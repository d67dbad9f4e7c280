"""Every way in which a worker can end, as Ray's tuner understands it: it knows two kinds of errors alone.

A worker that Ray's memory monitor kills raises OutOfMemoryError, which is no RayActorError, though it says that the
actor is gone. The tuner ends the whole search with "Caught unexpected exception" then, instead of the one trial.
"""

from __future__ import annotations

from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError


class LostWorker(RayActorError):  # noqa: N818 - what happened, as our own errors
    """A trial's worker is gone; cause: what Ray said of it."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(error_msg=str(cause))
        self.cause = cause

    def __reduce__(self) -> tuple[type, tuple[BaseException]]:
        return type(self), (self.cause,)


def as_actor_error(error: BaseException) -> BaseException:
    """The error, or where the tuner would not know it, a LostWorker of it."""
    known = isinstance(error, RayActorError | RayTaskError) or not isinstance(error, RayError)
    return error if known else LostWorker(error)


def unwrapped(error: BaseException) -> BaseException:
    """What was raised, out of Ray's wrappings."""
    while isinstance(error, RayTaskError | LostWorker) and error.cause is not None:
        error = error.cause
    return error


def understand_lost_workers() -> None:
    """Has the tuner take such errors as the death of the trial's worker. Called again it changes nothing."""
    if getattr(RayActorManager, "_understands_lost_workers", False):
        return
    task_failed, start_failed = RayActorManager._actor_task_failed, RayActorManager._actor_start_failed

    def on_task(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        task_failed(self, tracked_actor_task=tracked_actor_task, exception=as_actor_error(exception))

    def on_start(self: Any, tracked_actor: Any, exception: Exception) -> None:
        start_failed(self, tracked_actor=tracked_actor, exception=as_actor_error(exception))

    RayActorManager._actor_task_failed, RayActorManager._actor_start_failed = on_task, on_start
    RayActorManager._understands_lost_workers = True
