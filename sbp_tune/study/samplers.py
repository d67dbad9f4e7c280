"""The samplers that a study file may name: one entry each, made from plain arguments, without a study.

Constraints need no argument: Optuna's samplers read them from the trials, where `trial.set_constraint` put them.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from sbp_tune.errors import InputError
from sbp_tune.section import near
from sbp_tune.study.space import Space

GP_TRIALS = 150
"""Trials to which a Gaussian process is fitted; its cost grows with their cube, so beyond them TPE proposes."""

Distributions = Mapping[str, BaseDistribution]


class _FixedSpace:
    """A sampler's model is of the parameters that every trial of the space has.

    Optuna's own rule is the parameters that every trial so far had. A dense baseline has no keep fraction, so with
    one of them no model would ever see any. Without a space given, Optuna's rule stands.
    """

    fixed_space: Distributions | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if self.fixed_space is None:
            return super().infer_relative_search_space(study, trial)  # type: ignore[misc]
        return {name: domain for name, domain in self.fixed_space.items() if not domain.single()}


class _NSGAII(_FixedSpace, NSGAIISampler):
    """Its populations are of proposed trials only, which have all parameters of the space."""


class _NSGAIII(_FixedSpace, NSGAIIISampler):
    """Likewise."""


class _GP(_FixedSpace, GPSampler):
    """Fitted to the trials that lie in the space; what it does not model is proposed by TPE.

    That is: the first ten trials, conditional parameters, and everything after GP_TRIALS.
    """

    def _sample_relative_impl(
        self,
        study: optuna.Study,
        completed_trials: list[FrozenTrial],
        running_trials: list[FrozenTrial],
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        inside = [trial for trial in completed_trials if search_space.keys() <= trial.params.keys()]
        if not self._n_startup_trials <= len(inside) <= GP_TRIALS:
            return {}
        return super()._sample_relative_impl(study, inside, running_trials, search_space)


def _nehvi(seed: int, space: Space | None) -> BaseSampler:
    if space is None:
        raise InputError("search.sampler: nehvi needs the space of a study")
    from sbp_tune.study.gp_sampler import ConditionalGPSampler  # torch: only where it proposes

    return ConditionalGPSampler(space, seed, most_trials=GP_TRIALS)


def _gp(seed: int, space: Space | None) -> BaseSampler:
    sampler = _GP(seed=seed, independent_sampler=TPESampler(seed=seed), warn_independent_sampling=False)
    sampler.fixed_space = space.always_active() if space else None
    return sampler


def _nsga2(seed: int, space: Space | None) -> BaseSampler:
    sampler = _NSGAII(seed=seed)
    sampler.fixed_space = space.always_active() if space else None
    return sampler


def _nsga3(seed: int, space: Space | None) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = _NSGAIII(seed=seed)
    sampler.fixed_space = space.always_active() if space else None
    return sampler


SAMPLERS: dict[str, Callable[[int, Space | None], BaseSampler]] = {
    "gp": _gp,
    "nehvi": _nehvi,
    "tpe": lambda seed, _: TPESampler(seed=seed),
    "nsga2": _nsga2,
    "nsga3": _nsga3,
    "random": lambda seed, _: RandomSampler(seed=seed),
    "grid": lambda seed, _: RandomSampler(seed=seed),  # every point is enqueued; nothing is left to propose
}


def make_sampler(name: str, seed: int, space: Space | None = None) -> BaseSampler:
    """A sampler by its name, or `module:Class`, an Optuna sampler that takes a seed or no argument.

    space: what may be proposed; without it a model is of the parameters that all trials so far had.
    InputError for a name that is none, and for a class that cannot be used.
    """
    if ":" in name:
        return _of_user(name, seed)
    if name not in SAMPLERS:
        raise InputError(f"search.sampler: found {name!r}; {allowed_samplers(name)}")
    return SAMPLERS[name](seed, space)


def allowed_samplers(name: str) -> str:
    """What a file may say instead of a name that no sampler has."""
    names = ["auto", *SAMPLERS]
    return f"allowed: {', '.join(names)}, or module:Class of an Optuna sampler{near(name, names)}"


def resolved_sampler(name: str, is_flat: bool, trials: int) -> str:
    """The name of the sampler that `auto` stands for; any other name is itself.

    is_flat: every trial has every parameter; trials: so many will be proposed.
    """
    return name if name != "auto" else "gp" if is_flat and trials <= GP_TRIALS else "tpe"


def _of_user(path: str, seed: int) -> BaseSampler:
    module, _, name = path.partition(":")
    found = f"search.sampler: found {path!r}"
    try:
        made_by: Any = getattr(importlib.import_module(module), name)
    except AttributeError:
        raise InputError(f"{found}; {module} has no {name}") from None
    except Exception as error:  # somebody's module may raise anything
        raise InputError(f"{found}; {module} cannot be imported: {error}") from error
    if not (isinstance(made_by, type) and issubclass(made_by, BaseSampler)):
        raise InputError(f"{found}; needs a class derived from optuna.samplers.BaseSampler")
    parameters = inspect.signature(made_by).parameters.values()
    seeded = any(parameter.name == "seed" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    make: Callable[..., BaseSampler] = made_by
    try:
        return make(seed=seed) if seeded else make()
    except Exception as error:
        raise InputError(f"{found}; it cannot be made: {type(error).__name__}: {error}") from error
