"""What ends a search early: the kWh of all its trials together."""

from __future__ import annotations

from typing import Any

from ray.tune import Stopper


class KwhBudget(Stopper):
    """Stops every trial once the study has used its kWh; stopped trials are no points of the front.

    kwh: the limit; spent: what trials that ended before this start of the study had used.
    """

    def __init__(self, kwh: float, spent: float = 0.0) -> None:
        self.limit, self.spent = kwh, spent
        self.used: dict[str, float] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.used[trial_id] = result.get("kwh") or 0.0
        return False

    def stop_all(self) -> bool:
        return self.spent + sum(self.used.values()) >= self.limit
