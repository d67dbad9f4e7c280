"""Problems with two objectives: what a search may vary, what it is told, what is true, and how good is best.

Reference points are fixed, so hypervolumes of all searches compare, and `maximum` is that of the whole true front.
Sources: Zitzler, Deb, Thiele 2000, doi:10.1162/106365600568202 (ZDT1 to 3); Deb et al. 2002,
doi:10.1109/CEC.2002.1007032 (DTLZ2); Belakaria, Deshwal, Doppa 2019, arXiv:2011.01542 (Branin-Currin), with the
reference point and maximum of BoTorch's test functions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbp_tune.config import TrainConfig, check_config
from sbp_tune.files import read_yaml
from sbp_tune.study.domains import Range
from sbp_tune.study.space import Parameter, Space
from sbp_tune.study.space_parser import parse_space
from trainables.response import response, true_accuracy, true_kwh

Values = dict[str, Any]
Pair = tuple[float, float]


@dataclass(frozen=True)
class Problem:
    """Two objectives over a space.

    observed: what a search is told of a point, by the seed of its noise; true: without noise. Pairs are in the
    objectives' units, and `maximum` is the hypervolume of the true front above `reference`.
    """

    name: str
    space: Space
    directions: tuple[str, str]
    reference: Pair
    maximum: float
    true: Callable[[Values], Pair]
    noisy: Callable[[Values, int], Pair] | None = None

    def observed(self, values: Values, seed: int) -> Pair:
        return self.noisy(values, seed) if self.noisy else self.true(values)

    @property
    def is_conditional(self) -> bool:
        """Whether some points leave parameters out."""
        return any(parameter.when for parameter in self.space.parameters)


def problems() -> dict[str, Problem]:
    """All problems by name: five flat ones without noise, then the one that this project is about."""
    return {
        problem.name: problem
        for problem in (
            _flat("ZDT1", 6, (1.1, 5.5), 4.5 + 2 / 3 + 0.55, zdt1),
            _flat("ZDT2", 6, (1.1, 5.5), 4.5 + 1 / 3 + 0.55, zdt2),
            _flat("ZDT3", 6, (1.1, 5.5), 6.171763, zdt3),
            _flat("DTLZ2", 6, (1.1, 1.1), 1.21 - math.pi / 4, dtlz2),
            _flat("Branin-Currin", 2, (18.0, 6.0), 59.36011874867746, branin_currin),
            _sparse_backprop(),
        )
    }


def zdt1(x: list[float]) -> Pair:
    g = _distance(x)
    return x[0], g * (1 - math.sqrt(x[0] / g))


def zdt2(x: list[float]) -> Pair:
    g = _distance(x)
    return x[0], g * (1 - (x[0] / g) ** 2)


def zdt3(x: list[float]) -> Pair:
    g = _distance(x)
    return x[0], g * (1 - math.sqrt(x[0] / g) - x[0] / g * math.sin(10 * math.pi * x[0]))


def dtlz2(x: list[float]) -> Pair:
    radius = 1 + sum((value - 0.5) ** 2 for value in x[1:])
    return radius * math.cos(x[0] * math.pi / 2), radius * math.sin(x[0] * math.pi / 2)


def branin_currin(x: list[float]) -> Pair:
    u, v = 15 * x[0] - 5, 15 * x[1]
    branin = (v - 5.1 / (4 * math.pi**2) * u**2 + 5 / math.pi * u - 6) ** 2
    branin += 10 * (1 - 1 / (8 * math.pi)) * math.cos(u) + 10
    a, b = x
    damped = 1 - math.exp(-1 / (2 * b)) if b > 0 else 1.0
    currin = damped * (2300 * a**3 + 1900 * a**2 + 2092 * a + 60) / (100 * a**3 + 500 * a**2 + 4 * a + 20)
    return branin, currin


def sparse_backprop_config(values: Values, seed: int = 0) -> TrainConfig:
    """The training run that a point of the sparse-backprop space stands for; its seed is that of the noise."""
    return check_config({**_sparse_backprop_space().config(values), "seed": seed}, "sbp.yaml", "config")


def _sparse_backprop() -> Problem:
    """Accuracy and energy of a training run by the analytic response: conditional, mixed, with its noise of a run."""

    def true(values: Values) -> Pair:
        config = sparse_backprop_config(values)
        return true_accuracy(config, config.epochs), true_kwh(config, config.epochs)

    def noisy(values: Values, seed: int) -> Pair:
        end = response(sparse_backprop_config(values, seed))[-1]
        return end["val_accuracy"], end["kwh"]

    space = _sparse_backprop_space()
    # Its dearest dense run takes 0.1 kWh; the cheapest runs of its front are a little above 80 %.
    return Problem("sparse-backprop", space, ("max", "min"), (0.8, 0.11), 0.0100618, true, noisy)


@functools.cache
def _sparse_backprop_space() -> Space:
    return parse_space(read_yaml(Path(__file__).with_name("sbp.yaml")), "sbp.yaml")


def _flat(name: str, size: int, reference: Pair, maximum: float, function: Callable[[list[float]], Pair]) -> Problem:
    space = Space(tuple(Parameter(f"x{index}", Range("uniform", 0.0, 1.0)) for index in range(size)), {})

    def true(values: Values) -> Pair:
        return function([values[f"x{index}"] for index in range(size)])

    return Problem(name, space, ("min", "min"), reference, maximum, true)


def _distance(x: list[float]) -> float:
    return 1 + 9 * sum(x[1:]) / (len(x) - 1)
