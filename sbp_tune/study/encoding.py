"""Points of a study's space as rows of numbers, for a model: every parameter a column, whatever is conditional."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from optuna._gp.search_space import SearchSpace
from optuna.distributions import IntDistribution

from sbp_tune.study.domains import Domain, Options
from sbp_tune.study.space import Space

Array = NDArray[np.float64]
Parameters = Mapping[str, Any]  # of a trial, as Optuna stores them
_NO_OPTION = -1.0  # of a parameter without an order: unlike every option


class Encoding:
    """Optuna's parameters of a trial to a row of numbers and back.

    Ranges lie in [0, 1], logarithmic where their domain is; three or more options that are all numbers are steps
    of such a scale in their order, others the index of the option. A parameter that means nothing has one number
    that stands for that. `numbers` is the space of rows as Optuna's Gaussian process takes it.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        domains = {parameter.key: parameter.domain for parameter in space.parameters}
        self.distributions = {key: domain.distribution() for key, domain in domains.items()}
        self._keys = [key for key, distribution in self.distributions.items() if not distribution.single()]
        self._options = {key: domain.values for key, domain in domains.items() if isinstance(domain, Options)}
        self._orders = {key: order for key in self._keys if (order := _order(domains[key]))}
        steps = {key: IntDistribution(0, len(order) - 1) for key, order in self._orders.items()}
        self.numbers = SearchSpace({key: steps.get(key, self.distributions[key]) for key in self._keys})
        self._any = self.numbers.get_unnormalized_param(np.zeros(len(self._keys)))  # a valid value of each
        self._absent = np.full(len(self._keys), 0.5)
        choices = self.numbers.get_choices_of_discrete_params()
        for column, steps_of_column in zip(self.numbers.discrete_indices, choices, strict=True):
            self._absent[column] = steps_of_column[len(steps_of_column) // 2]
        self._absent[self.numbers.is_categorical] = _NO_OPTION
        conditions = {*self._options, *(key for parameter in space.parameters for key in parameter.when)}
        self._deciding = np.array([column for column, key in enumerate(self._keys) if key in conditions], dtype=int)
        self._mask = functools.lru_cache(maxsize=1 << 14)(self._mask_of)

    def has(self, parameters: Parameters) -> bool:
        """Whether a trial's point can be encoded: every number that means something there is known.

        A baseline may lie outside the space: an option that is none of the domain's can be encoded, a number not.
        """
        missing = self._active(parameters) - set(parameters)
        return all(key in self._options and key not in self._orders for key in missing)

    def encoded(self, points: list[Parameters]) -> Array:
        """Rows [n, parameters] of points that `has` says can be encoded."""
        known = [self._active(point) & set(point) for point in points]
        inner = [
            {key: self._inner(key, point[key]) if key in heard else self._inner(key, None) for key in self._keys}
            for point, heard in zip(points, known, strict=True)
        ]
        rows = self.numbers.get_normalized_params(inner, inner)  # type: ignore[arg-type]  # only their number counts
        return np.where([[key in heard for key in self._keys] for heard in known], rows, self._absent)

    def decoded(self, row: Array) -> dict[str, Any]:
        """Optuna's parameters of a row: those that mean something."""
        values = self.numbers.get_unnormalized_param(np.maximum(row, 0))
        for key, order in self._orders.items():
            values[key] = self.distributions[key].to_external_repr(order[values[key]])
        active = self._active(values)
        return {key: value for key, value in values.items() if key in active}

    def is_inside(self, rows: Array) -> NDArray[np.bool_]:
        """Which rows lie in the space: every option that means something is one of the domain's."""
        return ~((rows == _NO_OPTION) & self.numbers.is_categorical & self._masks(rows)).any(axis=1)

    def projected(self, x: torch.Tensor) -> torch.Tensor:
        """Rows [n, parameters] with what means nothing at its one number; gradients pass for the rest."""
        return torch.where(torch.from_numpy(self._masks(x.detach().numpy())), x, torch.from_numpy(self._absent))

    def _masks(self, rows: Array) -> NDArray[np.bool_]:
        """Which parameters mean something: bool [n, parameters]."""
        return np.array([self._mask(row.tobytes()) for row in rows[:, self._deciding]]).reshape(rows.shape)

    def _mask_of(self, deciding: bytes) -> NDArray[np.bool_]:
        row = self._absent.copy()
        row[self._deciding] = np.frombuffer(deciding)
        active = self.decoded(row)
        return np.array([key in active for key in self._keys])

    def _active(self, parameters: Parameters) -> set[str]:
        values = {}
        for key, label in parameters.items():
            if key in self._options:  # the config's value of what Optuna stores
                values[key] = self._options[key][int(self.distributions[key].to_internal_repr(label))]
            elif key in self.distributions:
                values[key] = label
        return set(self._space.active(values))

    def _inner(self, key: str, label: Any) -> Any:
        """A parameter in `numbers`; for None any that is valid."""
        if label is None:
            return self._any[key]
        if key in self._orders:
            return self._orders[key].index(int(self.distributions[key].to_internal_repr(label)))
        return label


def _order(domain: Domain) -> list[int]:
    """Places of a choice's options by size; empty where they have no order, or are too few for one to matter."""
    if not isinstance(domain, Options) or len(domain.values) < 3:
        return []
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in domain.values):
        return []
    return sorted(range(len(domain.values)), key=lambda place: domain.values[place])
