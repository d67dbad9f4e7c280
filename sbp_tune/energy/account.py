"""Sums of joules, by component and source, without rounding error that grows with their number."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from sbp_tune.energy.reading import JOULES_PER_KWH, Component, Source

_BEST_FIRST: Final[tuple[Source, ...]] = ("counter", "integrated", "model", "none")


class Sum:
    """A running sum to nearly twice the precision of a float (Neumaier 1974): a week of snapshots keeps 1e-15."""

    __slots__ = ("_carry", "_sum")

    def __init__(self) -> None:
        self._sum = self._carry = 0.0

    def add(self, value: float) -> None:
        total = self._sum + value
        large, small = (self._sum, value) if abs(self._sum) >= abs(value) else (value, self._sum)
        self._carry += (large - total) + small
        self._sum = total

    @property
    def value(self) -> float:
        return self._sum + self._carry


class Account:
    """Joules by component and source, and how uncertain they are."""

    def __init__(self) -> None:
        self._joules: defaultdict[tuple[str, Source], Sum] = defaultdict(Sum)
        self._uncertain: defaultdict[str, Sum] = defaultdict(Sum)

    def add(self, component: str, source: Source, joules: float, uncertainty: float) -> None:
        """uncertainty: relative; errors of one component have one cause, so they add up."""
        self._joules[component, source].add(joules)
        self._uncertain[component].add(joules * uncertainty)

    def add_all(self, other: Account) -> None:
        for key, joules in other._joules.items():
            self._joules[key].add(joules.value)
        for component, uncertain in other._uncertain.items():
            self._uncertain[component].add(uncertain.value)

    @property
    def joules(self) -> float:
        """Of all components."""
        return math.fsum(part.value for part in self._joules.values())

    @property
    def measured_kwh(self) -> float:
        """What hardware readings say."""
        return self._kwh(("counter", "integrated"))

    @property
    def modelled_kwh(self) -> float:
        """What formulas say."""
        return self._kwh(("model",))

    def component(self, name: str) -> Component:
        """kWh of one component with its least trustworthy source; `none` if there was nothing to add."""
        sources = [source for component, source in self._joules if component == name]
        if not sources:
            return Component(None, "none", None)
        joules = math.fsum(part.value for (component, _), part in self._joules.items() if component == name)
        uncertainty = self._uncertain[name].value / joules if joules else 0.0
        return Component(joules / JOULES_PER_KWH, worst(sources), uncertainty)

    def components(self) -> dict[str, Component]:
        """All that there are, `gpu` first."""
        present = {component for component, _ in self._joules}
        return {name: self.component(name) for name in ("gpu", "cpu", "ram") if name in present}

    def _kwh(self, sources: tuple[Source, ...]) -> float:
        return math.fsum(part.value for (_, source), part in self._joules.items() if source in sources) / JOULES_PER_KWH


def worst(sources: Iterable[Source]) -> Source:
    """The least trustworthy of some sources."""
    return max(sources, key=_BEST_FIRST.index)


def combine(components: Iterable[Component]) -> Component:
    """The sum of several windows of one component; None if one of them is: a part must not pass for the whole."""
    parts = list(components)
    kwh = [part.kwh for part in parts if part.kwh is not None]
    if len(kwh) < len(parts) or not parts:
        return Component(None, "none", None)
    total = math.fsum(kwh)
    uncertain = math.fsum(part.kwh * part.uncertainty for part in parts if part.kwh and part.uncertainty)
    return Component(total, worst(part.source for part in parts), uncertain / total if total else 0.0)
