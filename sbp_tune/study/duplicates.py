"""Which configs of a study need not be tried: those that have run, are running, or would not fit into memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from sbp_tune.errors import InputError
from sbp_tune.fingerprint import fingerprint, flat
from sbp_tune.study.file import Study

DUPLICATE_OF = "duplicate_of"  # attribute of a proposal that did not run: the trial that had run it
NO_SMALLER_THAN = "no_smaller_than"  # likewise: a trial that ran out of memory, though it needed no more
DOES_NOT_FIT = "does_not_fit"  # attribute of a trial that ran out of memory
REPLACED = "replaced"  # attribute of such a proposal: another one was made for it, so it does not count
_DRAWS = 100

_MORE = ("data.batch_size", "data.image_size", "sparsity.p0")  # keys of which more needs more memory
_NO_MEMORY = (  # beginnings of keys on which it does not depend
    *("optimizer.lr", "optimizer.weight_decay", "optimizer.betas", "optimizer.nesterov", "lr_schedule.", "epochs"),
    *("seed", "label_smoothing", "early_stopping", "energy.", "cpu_threads", "data.split_seed"),
    *("sparsity.k", "sparsity.p_min", "sparsity.per", "sparsity.warmup_dense", "sparsity.dense_", "sparsity.layers."),
)


class Seen:
    """The complete configs of a study's trials, by what has an effect in them."""

    def __init__(self, study: Study, trials: Iterable[FrozenTrial]) -> None:
        self._study = study
        self._numbers: dict[str, int] = {}
        self._do_not_fit: dict[int, dict[str, Any]] = {}
        for trial in trials:
            if "config" in trial.user_attrs:
                self.add(trial.number, trial.user_attrs["config"])

    def add(self, number: int, config: dict[str, Any]) -> None:
        self._numbers.setdefault(fingerprint(config), number)

    def note_what_does_not_fit(self, trials: Iterable[FrozenTrial]) -> None:
        """Takes up the trials that have run out of memory by now."""
        for trial in trials:
            if DOES_NOT_FIT in trial.user_attrs and trial.number not in self._do_not_fit:
                self._do_not_fit[trial.number] = trial.user_attrs["config"]

    def number_of(self, config: dict[str, Any]) -> int | None:
        """The first trial of an equal config."""
        return self._numbers.get(fingerprint(config))

    def smaller_that_did_not_fit(self, config: dict[str, Any]) -> int | None:
        """A trial that ran out of memory with a config that needs no more."""
        return next((number for number, other in self._do_not_fit.items() if needs_no_less(config, other)), None)

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
            config = self._study.train_config(point)
        except InputError:  # values that are valid one by one, but not together
            return False
        return self.number_of(config) is None and self.smaller_that_did_not_fit(config) is None


def needs_no_less(config: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a complete config needs as much memory as another or more, as far as the two can be compared.

    They can where they differ in nothing that memory depends on, but for what only adds to it: images in a batch, their
    size, and the keep fraction (the larger, the more of the graph is held). A study on unlike GPUs learns the smallest.
    """
    mine, theirs = flat(config), flat(other)
    for key in mine.keys() | theirs.keys():
        one, two = mine.get(key), theirs.get(key)
        if one == two or key.startswith(_NO_MEMORY):
            continue
        if key == "optimizer.momentum" and one and two:  # one buffer, whatever is in it
            continue
        if not (key in _MORE and one is not None and two is not None and one > two):
            return False
    return True


def was_left_out(trial: FrozenTrial) -> bool:
    """Whether a proposal did not run because of what another trial had shown."""
    return not {DUPLICATE_OF, NO_SMALLER_THAN}.isdisjoint(trial.user_attrs)


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those that the study file asks for."""
    return not trial.user_attrs.get(REPLACED, False)
