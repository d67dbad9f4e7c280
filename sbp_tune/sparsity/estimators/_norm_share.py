"""The share of the gradient's norm that an estimator keeps, for the adaptive schedule."""

from __future__ import annotations

import torch
from torch import Tensor


class NormShare:
    """Kept and total norm, summed over backward passes or steps, on the device of the norms until they are read."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # [kept, total]

    def add(self, kept: Tensor, total: Tensor) -> None:
        """Takes two scalars; nothing where they are not finite, for a gradient scaler skips such a step."""
        pair = torch.stack([kept, total]).float()
        pair = torch.where(pair.isfinite().all(), pair, 0.0)
        self._sums = pair if self._sums is None else self._sums + pair

    def read(self) -> float | None:
        """Kept / total since the last reading; None where nothing was seen."""
        if self._sums is None:
            return None
        kept, total = self._sums.tolist()
        self._sums = None
        return float(kept / total) if total > 0 else None

    def state_dict(self) -> dict[str, Tensor | None]:
        return {"sums": self._sums}

    def load_state_dict(self, state: dict[str, Tensor | None]) -> None:
        self._sums = state["sums"]
