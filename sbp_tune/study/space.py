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

from sbp_tune.config import is_meaningless
from sbp_tune.study.domains import Domain, Options, parameter_value


@dataclass(frozen=True)
class Parameter:
    """One searched leaf of the config and the conditions under which it means something."""

    key: str
    domain: Domain
    when: dict[str, list[Any]] = field(default_factory=dict)  # dotted key -> allowed values, all must hold


CASE = "case"
"""The parameter that says by which of the study file's cases a trial runs."""


@dataclass(frozen=True)
class Space:
    """Parameters in an order in which every condition comes before what depends on it, and the rest."""

    parameters: tuple[Parameter, ...]
    constants: dict[str, Any]  # flat, dotted
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)  # by name: constants that go together; see CASE

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
        grids = [parameter for parameter in self.parameters if parameter.domain.kind == "grid"]
        yield from self._combinations(grids, [parameter.domain.samples() for parameter in grids])

    def count(self, most: int = 10_000) -> int | None:
        """How many points there are; None for more than `most`, and where a range is not of whole numbers."""
        values: list[list[Any]] = []
        for domain in (parameter.domain for parameter in self.parameters):
            if isinstance(domain, Options):
                values.append(domain.samples())
            elif domain.kind == "int" and domain.high - domain.low < most:
                values.append(list(range(int(domain.low), int(domain.high) + 1)))
            else:
                return None
        if math.prod(map(len, values)) > most:
            return None
        return sum(1 for _ in self._combinations(self.parameters, values))

    def _combinations(self, parameters: Sequence[Parameter], options: list[list[Any]]) -> Iterator[dict[str, Any]]:
        """Every combination of active values, each once; one empty point of no parameters."""
        seen = set()
        for combination in itertools.product(*options):
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
        own = {key: value for key, value in values.items() if key != CASE}
        return {**self.constants, **self.cases.get(values.get(CASE, ""), {}), **own}

    def _is_active(self, parameter: Parameter, values: dict[str, Any]) -> bool:
        known = self._all(values)
        if is_meaningless(parameter.key, known):
            return False
        known[CASE] = values.get(CASE)
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
