"""The domains of the study-file language: what one parameter may be, and how Optuna is asked for it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution


@dataclass(frozen=True)
class Range:
    """`uniform: [low, high]`, `log_uniform: [low, high]` (floats) or `int: [low, high]`; both ends belong."""

    kind: str
    low: float
    high: float

    def suggest(self, trial: optuna.Trial, key: str) -> float:
        if self.kind == "int":
            return trial.suggest_int(key, int(self.low), int(self.high))
        return trial.suggest_float(key, self.low, self.high, log=self.kind == "log_uniform")

    def contains(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (self.kind != "int" or value == int(value))

    def middle(self) -> float:
        """Where a baseline stands that does not name this parameter."""
        if self.kind == "log_uniform":
            return math.sqrt(self.low * self.high)
        middle = (self.low + self.high) / 2
        return int(middle) if self.kind == "int" else middle

    def bounds(self) -> dict[str, Any] | None:
        """Ends and scale, as plain data."""
        return {"low": self.low, "high": self.high, "log": self.kind == "log_uniform"}

    def samples(self) -> list[Any]:
        """Values that stand for all of them in a check."""
        return [self.low, self.high]

    def values_in_order(self) -> list[Any] | None:
        """Every value; None where there is no end of them."""
        return list(range(int(self.low), int(self.high) + 1)) if self.kind == "int" else None

    def distribution(self) -> BaseDistribution:
        """As Optuna knows it."""
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high))
        return FloatDistribution(self.low, self.high, log=self.kind == "log_uniform")

    def __str__(self) -> str:
        return f"{self.kind} [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Options:
    """`choice: [...]` (proposed by the sampler) or `grid: [...]` (every value runs)."""

    kind: str
    values: tuple[Any, ...]

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        label = trial.suggest_categorical(key, [_label(value) for value in self.values])
        return next(value for value in self.values if _same(_label(value), label))

    def contains(self, value: Any) -> bool:
        return any(_same(value, option) for option in self.values)

    def middle(self) -> Any:
        """The first option: where a baseline stands that does not name this parameter."""
        return self.values[0]

    def bounds(self) -> dict[str, Any] | None:
        """None: options have no distance."""
        return None

    def samples(self) -> list[Any]:
        """Every option."""
        return list(self.values)

    def values_in_order(self) -> list[Any] | None:
        """Every option."""
        return list(self.values)

    def distribution(self) -> BaseDistribution:
        """As Optuna knows it."""
        return CategoricalDistribution([_label(value) for value in self.values])

    def __str__(self) -> str:
        return f"{self.kind} of {', '.join(str(_label(value)) for value in self.values)}"


Domain = Range | Options
KINDS = ("uniform", "log_uniform", "int", "choice", "grid")


def parse_domain(node: Any) -> tuple[Domain, dict[str, Any]] | None:
    """A mapping with one domain key (and perhaps `when`) to its domain and conditions; None for others.

    ValueError, to be put behind the dotted key, where the mapping is a domain but a malformed one.
    """
    if not isinstance(node, dict) or not (kinds := [kind for kind in KINDS if kind in node]):
        return None
    kind, rest = kinds[0], {key for key in node if key != kinds[0]} - {"when"}
    if rest:
        raise ValueError(
            f"a domain has one of {', '.join(KINDS)} and perhaps when; also found {', '.join(sorted(map(str, rest)))}"
        )
    when = node.get("when", {})
    if not isinstance(when, dict) or ("when" in node and not when):
        raise ValueError(f"when: found {when!r}; needs a mapping such as {{schedule: [linear, exponential]}}")
    argument = node[kind]
    return (_options(kind, argument) if kind in ("choice", "grid") else _range(kind, argument)), when


def parameter_value(domain: Domain, value: Any) -> Any:
    """The value as Optuna stores it."""
    return value if isinstance(domain, Range) else _label(value)


def _options(kind: str, argument: Any) -> Options:
    if not isinstance(argument, list) or not argument:
        raise ValueError(f"{kind}: found {argument!r}; needs a list of at least one value")
    labels = [_label(value) for value in argument]
    if repeated := sorted({str(label) for label in labels if labels.count(label) > 1}):
        raise ValueError(f"{kind}: {', '.join(repeated)} stands there more than once")
    return Options(kind, tuple(argument))


def _range(kind: str, argument: Any) -> Range:
    bounds: Sequence[Any] = argument if isinstance(argument, list) else []
    numbers = int if kind == "int" else (int, float)
    if len(bounds) != 2 or not all(isinstance(b, numbers) and not isinstance(b, bool) for b in bounds):
        unit = "whole numbers" if kind == "int" else "numbers"
        raise ValueError(f"{kind}: found {argument!r}; needs two {unit}, [low, high]")
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{kind}: found {argument!r}; low must be below high, both finite")
    if kind == "log_uniform" and low <= 0:
        raise ValueError(f"log_uniform: found {argument!r}; low must be above 0")
    return Range(kind, low, high)


def _label(value: Any) -> Any:
    """Optuna's categories are scalars; lists and mappings travel as JSON text."""
    return json.dumps(value) if isinstance(value, dict | list) else value


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)
