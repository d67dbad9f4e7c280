"""Which configs of a study have run or are running, and which points of its space have not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from sbp_tune.errors import InputError
from sbp_tune.fingerprint import fingerprint
from sbp_tune.study.file import Study

DUPLICATE_OF = "duplicate_of"  # attribute of a proposal that did not run: the trial that had run it
REPLACED = "replaced"  # attribute of such a proposal: another one was made for it, so it does not count
_DRAWS = 100


class Seen:
    """The complete configs of a study's trials, by what has an effect in them."""

    def __init__(self, study: Study, trials: Iterable[FrozenTrial]) -> None:
        self._study = study
        self._numbers: dict[str, int] = {}
        for trial in trials:
            if "config" in trial.user_attrs:
                self.add(trial.number, trial.user_attrs["config"])

    def add(self, number: int, config: dict[str, Any]) -> None:
        self._numbers.setdefault(fingerprint(config), number)

    def number_of(self, config: dict[str, Any]) -> int | None:
        """The first trial of an equal config."""
        return self._numbers.get(fingerprint(config))

    def unseen_parameters(self, fixed: dict[str, Any], seed: int) -> dict[str, Any] | None:
        """Optuna's parameters of a random point that no trial has, and that has the fixed ones; None if there is none.

        Where a space has no end, None after so many draws as tell that nearly all of it is one config.
        """
        space, random = self._study.space, np.random.default_rng(seed)
        points = space.points()
        if points is not None:
            candidates = list(points)
            drawn: Iterable[dict[str, Any]] = (candidates[i] for i in random.permutation(len(candidates)))
        else:
            scratch = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
            for _ in range(_DRAWS):
                scratch.enqueue_trial(fixed)
            drawn = (space.suggest(scratch.ask()) for _ in range(_DRAWS))
        for point in drawn:
            parameters = space.optuna_parameters(point)
            if fixed.items() <= parameters.items() and self._is_new(point):
                return parameters
        return None

    def _is_new(self, point: dict[str, Any]) -> bool:
        try:
            return self.number_of(self._study.train_config(point)) is None
        except InputError:  # values that are valid one by one, but not together
            return False


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those that the study file asks for."""
    return not trial.user_attrs.get(REPLACED, False)
