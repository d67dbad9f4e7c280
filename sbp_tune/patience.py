"""Early stopping of a single run: by its own validation, not beside other trials as a scheduler stops."""

from __future__ import annotations

from collections.abc import Mapping

from sbp_tune.config import EarlyStoppingConfig


class Patience:
    """Ends a run whose metric has not improved for `patience` epochs; without a rule, none.

    state: the best value so far, as higher is better, and how many epochs ago it was.
    """

    def __init__(self, rule: EarlyStoppingConfig | None) -> None:
        self._rule = rule
        self.state: tuple[float | None, int] = (None, 0)

    def ends_with(self, validation: Mapping[str, float]) -> bool:
        """Whether an epoch that was validated so is the last; to be asked once an epoch."""
        if self._rule is None:
            return False
        best, since = self.state
        value = -validation["val_loss"] if self._rule.metric == "val_loss" else validation["val_accuracy"]
        improved = best is None or value > best + self._rule.min_delta
        self.state = (value, 0) if improved else (best, since + 1)
        return self.state[1] >= self._rule.patience
