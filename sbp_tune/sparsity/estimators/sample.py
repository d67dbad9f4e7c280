"""sample: train on the samples of highest loss; the others take part in no pass at all.

Of a batch of n samples keep k = ceil(p n): those of highest loss, by the loss that each had when it was
last trained on (no extra forward pass), those never seen first; the part `exploration` of k goes to the
samples not seen for longest, whose cached loss is the stalest. Biased. Any network, any loss:

    keep = handle.select(indices)                    # indices: [n] numbers of the samples in the data set
    losses = cross_entropy(model(x[keep]), y[keep], reduction="none")
    handle.record(indices[keep], losses)
    losses.mean().backward()

`select(indices, losses)` ranks by losses that the caller has just computed, as the original does. Cost
of a step: p, or p + 1/3 with such an extra forward pass. Source: Selective-Backprop (Jiang et al.,
2019), with the cache of online batch selection (Loshchilov and Hutter, 2016).
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from sbp_tune.errors import SbpTuneError
from sbp_tune.sparsity.estimators._base import Estimator
from sbp_tune.sparsity.estimators.mask import kept_count


class Sample(Estimator):
    """Chooses the samples of a batch by their last loss."""

    default_dense: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._losses = torch.empty(0)  # by number of the sample; inf: not seen
        self._seen = torch.empty(0, dtype=torch.long)  # turn in which it was last trained on
        self._turn = 0
        self._was_asked = False

    def select(self, indices: Tensor, losses: Tensor | None) -> Tensor:
        self._was_asked = True
        n, kept = len(indices), kept_count(self.p, len(indices))
        if kept >= n:
            return torch.arange(n, device=indices.device)
        numbers = indices.cpu().long()
        self._make_room(numbers)
        if losses is not None:
            return losses.detach().topk(kept).indices.sort().values.to(indices.device)
        stale = int(self.config.exploration * kept)
        chosen = torch.zeros(n, dtype=torch.bool)
        chosen[self._losses[numbers].topk(kept - stale).indices] = True
        age = (self._turn - self._seen[numbers]).masked_fill(chosen, -1)
        chosen[age.topk(stale).indices] = True
        return chosen.nonzero().squeeze(1).to(indices.device)

    def record(self, indices: Tensor, losses: Tensor) -> None:
        numbers = indices.cpu().long()
        self._make_room(numbers)
        self._turn += 1
        self._losses[numbers] = losses.detach().float().cpu()
        self._seen[numbers] = self._turn

    def graph_key(self, samples: int) -> Hashable:
        return ()  # it chooses before the passes, which are dense ones

    def before_step(self, *optimizers: Optimizer) -> None:
        if self.p < 1 and not self._was_asked:
            raise SbpTuneError(
                "sparsity.estimator: sample needs the training loop's help: keep = handle.select(indices) before the "
                "forward pass, train on x[keep], and handle.record(indices[keep], losses) after it"
            )
        self._was_asked = False

    def state_dict(self) -> dict[str, Any]:
        cache = {"losses": self._losses.clone(), "seen": self._seen.clone(), "turn": self._turn}
        return {**super().state_dict(), **cache}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._losses, self._seen, self._turn = state["losses"].clone(), state["seen"].clone(), state["turn"]

    def _make_room(self, numbers: Tensor) -> None:
        """The cache grows to the highest number seen, by half at least."""
        needed = int(numbers.max()) + 1 if len(numbers) else 0
        if needed > len(self._losses):
            more = max(needed, len(self._losses) * 3 // 2) - len(self._losses)
            self._losses = torch.cat([self._losses, torch.full((more,), math.inf)])
            self._seen = torch.cat([self._seen, torch.zeros(more, dtype=torch.long)])
