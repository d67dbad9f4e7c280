"""A trial whose worker died goes on as a new attempt, after a rest, and is given up when that happens too often.

Only deaths count: of the process, of its node, or of Ray on it. An exception that training raises is the config's
own, and would only be raised again.
"""

from __future__ import annotations

import time

import optuna
from optuna.trial import FrozenTrial
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    WorkerCrashedError,
)

from sbp_tune.study.storage import set_attribute, trial_of

_DEATHS = "deaths"  # attribute of a trial: its attempts that died, with the Unix time of each
_LONGEST_REST_S = 60.0


def is_death(error: BaseException) -> bool:
    """Whether it was the worker or its node that ended, and not the code that ran there."""
    if isinstance(error, RayActorError):
        return not error.actor_init_failed  # the trainable's own exception, though it ended the actor
    # A result that was lost: its node went after the epoch.
    died = (WorkerCrashedError, NodeDiedError, LocalRayletDiedError, OutOfMemoryError, ObjectLostError)
    return isinstance(error, died)


def note_death(storage: optuna.Study, number: int, attempt: str) -> int:
    """Notes that an attempt, by Ray's id, has died; how many of this trial have."""
    deaths = {**trial_of(storage, number).user_attrs.get(_DEATHS, {}), attempt: time.time()}
    set_attribute(storage, number, _DEATHS, deaths)
    return len(deaths)


def died(trial: FrozenTrial) -> set[str]:
    """Ray's ids of the attempts of a trial that have died."""
    return set(trial.user_attrs.get(_DEATHS, {}))


def rests(trial: FrozenTrial, now: float | None = None) -> bool:
    """Whether the next attempt has to wait: 1 s after the first death, then twice as long each time, at most 60 s.

    What killed the worker (memory that is full, a node that is going) often takes a while to pass.
    """
    deaths: dict[str, float] = trial.user_attrs.get(_DEATHS, {})
    rest = min(_LONGEST_REST_S, 2.0 ** (len(deaths) - 1))
    now = time.time() if now is None else now
    return bool(deaths) and 0 <= now - max(deaths.values()) < rest  # a clock that was set back holds up nothing
