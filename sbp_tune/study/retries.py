"""A trial whose worker died goes on as a new attempt, after a rest, and is given up when that happens too often.

Only deaths count: of the process, of its node, or of Ray on it; and an epoch that hung, of which the worker was killed.
An exception that training raises is the config's own, and would only be raised again. One that its node is to blame for
(see `nodes`) is no death of the trial's either: it goes on elsewhere at once.
"""

from __future__ import annotations

import time

import optuna
from optuna.trial import FrozenTrial

from sbp_tune.errors import EpochTimeout
from sbp_tune.study.storage import attempts, set_attribute, trial_of

_DEATHS = "deaths"  # attribute of a trial: its attempts that died, with the Unix time of each
_LOST = "lost"  # likewise: all attempts that ended before the trial did, with the reason of each
_MOST_LOST = 10  # attempts that nodes may be to blame for; a trial that fails on more is to blame itself
_LONGEST_REST_S = 60.0


def is_death(error: BaseException) -> bool:
    """Whether it was the worker or its node that ended, and not the code that ran there."""
    from ray.exceptions import (
        LocalRayletDiedError,
        NodeDiedError,
        ObjectLostError,
        OutOfMemoryError,
        RayActorError,
        WorkerCrashedError,
    )

    if isinstance(error, RayActorError):
        return not error.actor_init_failed  # the trainable's own exception, though it ended the actor
    # A result that was lost: its node went after the epoch.
    died = (WorkerCrashedError, NodeDiedError, LocalRayletDiedError, OutOfMemoryError, ObjectLostError, EpochTimeout)
    return isinstance(error, died)


def note_death(storage: optuna.Study, number: int, attempt: str, why: str) -> int:
    """Notes that an attempt, by Ray's id, has died; how many of this trial have."""
    deaths = {**trial_of(storage, number).user_attrs.get(_DEATHS, {}), attempt: time.time()}
    _note_lost(storage, number, attempt, why)
    set_attribute(storage, number, _DEATHS, deaths)
    return len(deaths)


def note_misplaced(storage: optuna.Study, number: int, attempt: str, why: str) -> bool:
    """Notes that an attempt ended through no fault of its trial; False where that has happened too often."""
    if len(lost_attempts(trial_of(storage, number))) >= _MOST_LOST:
        return False
    _note_lost(storage, number, attempt, why)
    return True


def died(trial: FrozenTrial) -> set[str]:
    """Ray's ids of the attempts of a trial that have ended before it."""
    return set(trial.user_attrs.get(_DEATHS, {})) | set(trial.user_attrs.get(_LOST, {}))


def lost_attempts(trial: FrozenTrial) -> dict[int, str]:
    """Why attempts of a trial ended before it, by their number, from 0."""
    reasons: dict[str, str] = trial.user_attrs.get(_LOST, {})
    return {number: reasons[attempt] for number, attempt in enumerate(attempts(trial)) if attempt in reasons}


def _note_lost(storage: optuna.Study, number: int, attempt: str, why: str) -> None:
    reasons = trial_of(storage, number).user_attrs.get(_LOST, {})
    set_attribute(storage, number, _LOST, {**reasons, attempt: why})


def rests(trial: FrozenTrial, now: float | None = None) -> bool:
    """Whether the next attempt has to wait: 1 s after the first death, then twice as long each time, at most 60 s.

    What killed the worker (memory that is full, a node that is going) often takes a while to pass.
    """
    deaths: dict[str, float] = trial.user_attrs.get(_DEATHS, {})
    rest = min(_LONGEST_REST_S, 2.0 ** (len(deaths) - 1))
    now = time.time() if now is None else now
    return bool(deaths) and 0 <= now - max(deaths.values()) < rest  # a clock that was set back holds up nothing
