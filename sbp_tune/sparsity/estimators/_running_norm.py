"""Running means of gradient norms, for selections that follow importance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

DECAY = 0.9
"""A memory of about ten selections: gradient norms change within an epoch."""


class RunningNorm:
    """Exponential means of norms by name and place, on the device of the norms until they are read."""

    def __init__(self) -> None:
        self._means: dict[str, Tensor] = {}

    def update(self, name: str, places: Tensor, norms: Tensor, size: int) -> None:
        """Takes norms [k] of distinct places [k] of `size`; what is not finite (fp16 overflow) is passed over."""
        means = self._means.setdefault(name, torch.full((size,), math.nan, device=norms.device))
        old, norms = means[places], norms.float()
        mean = torch.where(old.isnan(), norms, DECAY * old + (1 - DECAY) * norms)
        means[places] = torch.where(norms.isfinite(), mean, old)

    def read(self, name: str, size: int) -> list[float]:
        """Means by place; inf for what was never seen, so that it is tried first."""
        means = self._means.get(name)
        return [math.inf] * size if means is None else means.nan_to_num(nan=math.inf).tolist()

    def state_dict(self) -> dict[str, Tensor]:
        return {name: means.clone() for name, means in self._means.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._means = {name: means.clone() for name, means in state.items()}
