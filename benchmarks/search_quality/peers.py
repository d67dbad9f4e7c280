"""The searches that are compared, each behind ask and tell: ours, Optuna's, and two further platforms.

A peer is asked for a point whenever a worker is free, and told what a point gave when its run is over. Each is
used as its makers set it up, except where its entry says otherwise; all know the directions, none the noise.
"""

from __future__ import annotations

import importlib.metadata
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import optuna

from benchmarks.search_quality.problems import Pair, Problem, Values
from sbp_tune.study.domains import Options, Range
from sbp_tune.study.samplers import make_sampler, resolved_sampler


class Search(Protocol):
    """One search of one problem."""

    def ask(self) -> tuple[Any, Values]:
        """A handle of the next trial, and its point."""

    def tell(self, handle: Any, observed: Pair) -> None:
        """What a trial gave, in the problem's units."""


class Peer(NamedTuple):
    """How a search is made for a problem and a seed, and which distribution it needs beside ours."""

    make: Callable[[Problem, int], Search]
    package: str = "optuna"

    @property
    def version(self) -> str | None:
        """Of its package; None where that is not installed."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None


class OptunaSearch:
    """Any Optuna sampler on the define-by-run space."""

    def __init__(self, problem: Problem, sampler: optuna.samplers.BaseSampler) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        directions = ["maximize" if direction == "max" else "minimize" for direction in problem.directions]
        self._space, self._study = problem.space, optuna.create_study(directions=directions, sampler=sampler)

    def ask(self) -> tuple[Any, Values]:
        trial = self._study.ask()
        return trial, self._space.suggest(trial)

    def tell(self, handle: Any, observed: Pair) -> None:
        self._study.tell(handle, observed)


class AxSearch:
    """Ax's own choice of method, which for several objectives is expected hypervolume improvement.

    Its conditions form a tree, and a parameter that two options need (k) fits in none: so it proposes every
    parameter, and those that mean nothing are dropped.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        from ax.api.client import Client
        from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig
        from ax.utils.common.logger import set_ax_logger_levels

        set_ax_logger_levels(logging.ERROR)
        warnings.simplefilter("ignore")
        self._problem, self._client = problem, Client(random_seed=seed)
        parameters: list[Any] = []
        for parameter in problem.space.parameters:
            key, domain = parameter.key, parameter.domain
            if isinstance(domain, Range):
                kind = "int" if domain.kind == "int" else "float"
                scaling = "log" if domain.kind == "log_uniform" else "linear"
                parameters.append(RangeParameterConfig(key, (domain.low, domain.high), kind, scaling=scaling))
            else:
                kind = "str" if isinstance(domain.values[0], str) else "int"
                parameters.append(ChoiceParameterConfig(key, list(domain.values), kind, is_ordered=kind == "int"))
        self._client.configure_experiment(parameters)
        signs = ("" if direction == "max" else "-" for direction in problem.directions)
        self._client.configure_optimization(", ".join(f"{sign}{name}" for sign, name in zip(signs, "ab", strict=True)))
        self._client.configure_generation_strategy(initialization_random_seed=seed)

    def ask(self) -> tuple[Any, Values]:
        [(index, values)] = self._client.get_next_trials(1).items()
        return index, _meant(self._problem, values)

    def tell(self, handle: Any, observed: Pair) -> None:
        self._client.complete_trial(handle, dict(zip("ab", observed, strict=True)))


class SyneTuneSearch:
    """Multi-objective regularised evolution; of 20, since its own population of 100 would be random search here.

    It knows no conditions: it proposes every parameter, and those that mean nothing are dropped. Its expected
    hypervolume improvement raises an error with today's torch and BoTorch.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        from syne_tune.config_space import choice, loguniform, randint, uniform
        from syne_tune.optimizer.schedulers.ask_tell_scheduler import AskTellScheduler
        from syne_tune.optimizer.schedulers.multiobjective import MultiObjectiveRegularizedEvolution
        from syne_tune.optimizer.schedulers.single_fidelity_scheduler import SingleFidelityScheduler

        ranges = {"uniform": uniform, "log_uniform": loguniform, "int": randint}
        space = {
            parameter.key: choice(list(parameter.domain.values))
            if isinstance(parameter.domain, Options)
            else ranges[parameter.domain.kind](parameter.domain.low, parameter.domain.high)
            for parameter in problem.space.parameters
        }
        searcher = MultiObjectiveRegularizedEvolution(space, population_size=20, random_seed=seed)
        scheduler = SingleFidelityScheduler(space, ["a", "b"], do_minimize=True, searcher=searcher, random_seed=seed)
        self._problem, self._search = problem, AskTellScheduler(scheduler)
        self._signs = [-1 if direction == "max" else 1 for direction in problem.directions]  # one direction for all

    def ask(self) -> tuple[Any, Values]:
        trial = self._search.ask()
        return trial, _meant(self._problem, trial.config)

    def tell(self, handle: Any, observed: Pair) -> None:
        signed = (sign * value for sign, value in zip(self._signs, observed, strict=True))
        self._search.tell(handle, dict(zip("ab", signed, strict=True)))


def _default(problem: Problem, seed: int) -> Search:
    """What a study file gets that names no sampler, for a search of a hundred trials."""
    name = resolved_sampler("auto", problem.space.is_flat, 100)
    return OptunaSearch(problem, make_sampler(name, seed, problem.space))


def _nehvi(problem: Problem, seed: int) -> Search:
    return OptunaSearch(problem, make_sampler("nehvi", seed, problem.space))


def _gp(problem: Problem, seed: int) -> Search:
    return OptunaSearch(problem, optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False))


def _meant(problem: Problem, values: Mapping[str, Any]) -> Values:
    """The values that mean something."""
    return {key: values[key] for key in problem.space.active(dict(values))}


PEERS: dict[str, Peer] = {
    "our default": Peer(_default),
    "our nehvi": Peer(_nehvi),
    "random": Peer(lambda problem, seed: OptunaSearch(problem, optuna.samplers.RandomSampler(seed=seed))),
    "Optuna NSGA-II": Peer(lambda problem, seed: OptunaSearch(problem, optuna.samplers.NSGAIISampler(seed=seed))),
    "Optuna TPE": Peer(lambda problem, seed: OptunaSearch(problem, optuna.samplers.TPESampler(seed=seed))),
    "Optuna GP": Peer(_gp),
    "Syne Tune": Peer(SyneTuneSearch, "syne-tune"),
    "Ax": Peer(AxSearch, "ax-platform"),
}
