"""The search space of a study file: domains with conditions, as a define-by-run Optuna space.

`Space.suggest(trial)` asks Optuna only for parameters that mean something given what was asked
before: a domain whose `when` is not met, or that has no effect (the keep fraction of a dense trial),
is not proposed, so the sampler never learns from a number that did nothing. It returns flat dotted
values, and so serves Ray's OptunaSearch as its define-by-run function as it is.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from sbp_tune.config import DECIDING_KEYS, is_meaningless
from sbp_tune.study.domains import Domain, parameter_value

MOST_POINTS = 100_000
"""More points than this nobody runs one by one."""


@dataclass(frozen=True)
class Parameter:
    """One searched leaf of the config and the conditions under which it means something."""

    key: str
    domain: Domain
    when: dict[str, list[Any]] = field(default_factory=dict)  # dotted key -> allowed values, all must hold


@dataclass(frozen=True)
class Space:
    """Parameters in an order in which every condition comes before what depends on it, and the rest."""

    parameters: tuple[Parameter, ...]
    constants: dict[str, Any]  # flat, dotted

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Asks Optuna for every active parameter; flat dotted values. A define-by-run function."""
        values: dict[str, Any] = {}
        for parameter in self.parameters:
            if self._is_active(parameter, values):
                values[parameter.key] = parameter.domain.suggest(trial, parameter.key)
        return values

    def point(self, fixed: dict[str, Any]) -> dict[str, Any]:
        """Flat values of all active parameters: those given, and each other in the middle of its domain."""
        values = self._filled(fixed)
        return {key: value for key, value in values.items() if not is_meaningless(key, self._all(values))}

    def active(self, values: dict[str, Any]) -> list[str]:
        """Keys of the parameters that mean something given these values; a value that means nothing is not heard."""
        heard: dict[str, Any] = {}
        keys = []
        for parameter in self.parameters:
            if self._is_active(parameter, heard):
                keys.append(parameter.key)
                if parameter.key in values:
                    heard[parameter.key] = values[parameter.key]
        return keys

    def optuna_parameters(self, values: dict[str, Any]) -> dict[str, Any]:
        """The part of a point that lies inside the domains, as Optuna stores it."""
        return {
            parameter.key: parameter_value(parameter.domain, values[parameter.key])
            for parameter in self.parameters
            if parameter.key in values and parameter.domain.contains(values[parameter.key])
        }

    def config(self, values: dict[str, Any]) -> dict[str, Any]:
        """The nested config of a point: constants, then values."""
        return nested(self._all(values))

    def grid_points(self) -> Iterator[dict[str, Any]]:
        """Every combination of the grid domains' active values, each once; one empty point without a grid."""
        return self._combinations([parameter for parameter in self.parameters if parameter.domain.kind == "grid"])

    def points(self) -> Iterator[dict[str, Any]] | None:
        """Every point, each once, the last parameter varying fastest; None where there are more than MOST_POINTS."""
        sizes = [len(parameter.domain.values_in_order() or ()) for parameter in self.parameters]
        return self._combinations(self.parameters) if 0 < math.prod(sizes) <= MOST_POINTS else None

    def endless(self) -> list[str]:
        """Keys of the parameters that can have any value between two."""
        return [parameter.key for parameter in self.parameters if parameter.domain.values_in_order() is None]

    def always_active(self) -> dict[str, BaseDistribution]:
        """Optuna's distributions of the parameters that every trial has: those without condition, said or implied."""
        return {
            parameter.key: parameter.domain.distribution()
            for parameter in self.parameters
            if not parameter.when and not any(is_meaningless(parameter.key, setting) for setting in self.settings())
        }

    @property
    def is_flat(self) -> bool:
        """Whether every trial has every parameter."""
        return len(self.always_active()) == len(self.parameters)

    def settings(self) -> list[dict[str, Any]]:
        """Every combination of what decides which parameters mean something, flat and dotted."""
        fixed = {key: self.constants[key] for key in DECIDING_KEYS if key in self.constants}
        searched = [parameter for parameter in self.parameters if parameter.key in DECIDING_KEYS]
        return [
            {**fixed, **dict(zip([parameter.key for parameter in searched], values, strict=True))}
            for values in itertools.product(*(parameter.domain.samples() for parameter in searched))
        ]

    def _combinations(self, parameters: Sequence[Parameter]) -> Iterator[dict[str, Any]]:
        """Every combination of parameters with an end to their values; those without effect are left out."""
        seen = set()
        for combination in itertools.product(*(parameter.domain.values_in_order() or () for parameter in parameters)):
            values: dict[str, Any] = {}
            for parameter, value in zip(parameters, combination, strict=True):
                if self._is_active(parameter, values):
                    values[parameter.key] = value
            if (label := json.dumps(values)) not in seen:
                seen.add(label)
                yield values

    def _filled(self, fixed: dict[str, Any]) -> dict[str, Any]:
        values = dict(fixed)
        for parameter in self.parameters:
            if parameter.key not in values and self._is_active(parameter, values):
                values[parameter.key] = parameter.domain.middle()
        return values

    def _all(self, values: dict[str, Any]) -> dict[str, Any]:
        return {**self.constants, **values}

    def _is_active(self, parameter: Parameter, values: dict[str, Any]) -> bool:
        known = self._all(values)
        if is_meaningless(parameter.key, known):
            return False
        return all(key in known and known[key] in allowed for key, allowed in parameter.when.items())

    def example(self, key: str, value: Any) -> dict[str, Any]:
        """A point that has `value` at a parameter, its conditions met: what a check validates."""
        fixed = {key: value}
        pending = [key]
        by_key = {parameter.key: parameter for parameter in self.parameters}
        while pending:
            for needed, allowed in by_key[pending.pop()].when.items():
                if needed in by_key and needed not in fixed:
                    fixed[needed] = next(option for option in allowed if by_key[needed].domain.contains(option))
                    pending.append(needed)
        return self._filled(fixed)  # a value must be valid even where it happens to mean nothing


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys to nested mappings."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):  # a.b beside a plain a: the longer key is the problem to report
                child = node[parent] = {}
            node = child
        node[leaf] = copy.deepcopy(value)
    return tree
