"""mask: the published method. Saves no compute: the whole gradient is computed, then most is zeroed.

Of the n elements of a weight gradient g, or of all of them together (`scope: global`), keep the
ceil(p n) largest by abs(g) (sparse-backpropagation paper, Algorithm 1), g^2, or abs(w g); set the
others to zero. Ranked every step, or every n steps or every epoch on the mean of the score over the
steps since the last ranking (the first step ranks on itself). All convolution and linear weights
take part, first and last too, as in both papers; biases and normalisation stay dense (section III of
the first) unless `include` names them: `*.bias`, `*.bn?.weight`. Biased. Cost of a step: 1 + selection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sbp_tune.sparsity.compact_step import Elements, Selection, in_memory_order
from sbp_tune.sparsity.estimators._base import Estimator
from sbp_tune.sparsity.estimators._norm_share import NormShare
from sbp_tune.sparsity.layers import Layer


class Mask(Estimator):
    """Zeroes all but the largest elements of the weight gradients."""

    default_dense: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[Literal["products", "gradient", "nothing"]] = "gradient"
    takes_parameters: ClassVar[bool] = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._masks: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}  # of the scores since the last ranking
        self._steps = 0  # since the last ranking
        self._rank_next = True
        self._kept: dict[Layer, Tensor] = {}
        self._norms = NormShare()  # of squared norms

    def start_epoch(self) -> None:
        if self.config.reselect_every == "epoch":
            self._rank_next = True

    def graph_key(self, samples: int) -> Hashable:
        return ()  # the passes are dense ones

    def before_step(self, *optimizers: Optimizer) -> None:
        learning = [layer for layer in self.layers if layer.weight.grad is not None]
        every = self.config.reselect_every
        if every == 1 and all(self.keep_of(layer) >= 1 for layer in learning):
            self._kept = {}
            return
        self._steps += 1
        due = self._rank_next or (every != "epoch" and self._steps >= every)
        scores = {layer: self._running_score(layer) for layer in learning} if every != 1 or due else {}
        if due and every != 1 and not _all_finite(scores):
            self._rank_next, due = True, False  # a gradient scaler skips this step: the next is ranked
        if due:
            ranked = self._rank_all(scores) if self.config.scope == "global" else self._rank_each(scores)
            self._masks = {layer.name: mask for layer, mask in ranked.items()}
            self._sums.clear()
            self._steps, self._rank_next = 0, False
        self._kept = {layer: self._masks[layer.name] for layer in learning if layer.name in self._masks}
        measures = self.config.schedule == "adaptive" and learning
        before = _squared_norm(learning) if measures else None
        in_threads(lambda layer: multiply(layer.weight.grad, self._kept[layer]), list(self._kept))
        if before is not None:
            self._norms.add(_squared_norm(learning), before)

    def selected(self) -> dict[nn.Parameter, Selection]:
        fresh = self.config.scope == "layer" and self.config.reselect_every == 1

        def positions(layer: Layer) -> Tensor:
            mask = self._kept[layer]
            ordered = in_memory_order(mask, mask).reshape(-1)
            return _positions(ordered, kept_count(self.keep_of(layer), mask.numel()) if fresh else None)

        found: dict[nn.Parameter, Selection] = {}
        for layer, index in zip(self._kept, in_threads(positions, list(self._kept)), strict=True):
            assert isinstance(layer.weight, nn.Parameter)
            found[layer.weight] = Elements(index, self._kept[layer])
        return found

    def norm_share(self) -> float | None:
        share = self._norms.read()
        return None if share is None else math.sqrt(share)

    def state_dict(self) -> dict[str, Any]:
        ranking = {"masks": dict(self._masks), "sums": dict(self._sums), "norms": self._norms.state_dict()}
        return {**super().state_dict(), **ranking, "steps": self._steps, "rank_next": self._rank_next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._masks, self._sums = dict(state["masks"]), dict(state["sums"])
        self._norms.load_state_dict(state["norms"])
        self._steps, self._rank_next = state["steps"], state["rank_next"]

    def _running_score(self, layer: Layer) -> Tensor:
        """Sum of the score over the steps since the last ranking; it ranks as the mean does."""
        score = self._score(layer)
        if self.config.reselect_every == 1:
            return score
        score.nan_to_num_(nan=0.0, posinf=0.0)  # a step that a gradient scaler skips
        if layer.name in self._sums:
            score += self._sums[layer.name]
        self._sums[layer.name] = score
        return score

    def _score(self, layer: Layer) -> Tensor:
        gradient = layer.weight.grad
        assert gradient is not None
        match self.config.score:
            case "grad_squared":
                return gradient.square()
            case "abs_weight_grad":
                return (layer.weight.detach() * gradient).abs_()
            case _:
                return gradient.abs()

    def _rank_each(self, scores: dict[Layer, Tensor]) -> dict[Layer, Tensor]:
        counts = {layer: kept_count(self.keep_of(layer), score.numel()) for layer, score in scores.items()}
        partly = [layer for layer in scores if counts[layer] < scores[layer].numel()]
        masks = in_threads(lambda layer: largest(scores[layer], counts[layer]), partly)
        return dict(zip(partly, masks, strict=True))

    def _rank_all(self, scores: dict[Layer, Tensor]) -> dict[Layer, Tensor]:
        """One ranking of all layers' scores; `min_per_layer` of each layer comes first."""
        if not scores:
            return {}
        least = self.config.min_per_layer
        ordered = {layer: in_memory_order(score, score).reshape(-1) for layer, score in scores.items()}
        ranked = ordered
        if least:
            ranked = {
                layer: score.masked_fill(largest(score, kept_count(least, score.numel())), math.inf)
                for layer, score in ordered.items()
            }
        everything = torch.cat(list(ranked.values()))
        count = kept_count(self.p, everything.numel())
        if count == everything.numel():
            return {}
        mask = largest(everything, count)
        parts = mask.split([score.numel() for score in ordered.values()])
        return {layer: _laid_out_as(scores[layer], part) for layer, part in zip(scores, parts, strict=True)}


def kept_count(keep: float, size: int) -> int:
    """ceil(keep x size), at least 1, unmoved by the rounding of the product (0.1 x 30 keeps 3, not 4)."""
    return min(size, max(1, math.ceil(keep * size - 1e-12 * size)))


def largest(scores: Tensor, count: int) -> Tensor:
    """Bool mask of exactly `count` largest elements, any shape; of equal ones the first in memory.

    NaN counts as large, so that a gradient scaler still finds what must be skipped; if the
    threshold itself is NaN, everything is kept.
    """
    flat = in_memory_order(scores, scores).reshape(-1)  # no copy, channels-last neither
    return _laid_out_as(scores, at_least(kth_largest(flat, count), flat, count))


def at_least(threshold: Tensor, flat: Tensor, count: int) -> Tensor:
    """Bool mask [n] of exactly `count` elements that are not below the threshold, which is the count-th largest."""
    kept = _not_below(flat, threshold)
    if flat.device.type == "cpu" and np.count_nonzero(kept.numpy()) == count:  # neither ties nor NaN: the usual case
        return kept
    kept = ~(flat < threshold)
    tied = flat == threshold
    surplus = kept.sum() - count  # stays on the device: no synchronisation
    first = tied.cumsum(0) <= tied.sum() - surplus
    return kept & (first | ~tied)


def _laid_out_as(scores: Tensor, flat: Tensor) -> Tensor:
    """A view of elements [n] in memory order with the shape and the strides of `scores`."""
    layout = torch.empty_like(scores, dtype=flat.dtype)
    return flat.as_strided(layout.shape, layout.stride(), flat.storage_offset())


def kth_largest(flat: Tensor, count: int) -> Tensor:
    """Value [1] of the count-th largest element, by selection, not by sorting."""
    index = flat.numel() - count
    if _fit_for_numpy(flat):
        # numpy's vectorised introselect is about eight times faster than torch's kthvalue on a CPU
        return torch.from_numpy(np.partition(flat.detach().numpy(), index)[index : index + 1])
    return flat.kthvalue(index + 1).values


def in_threads(function: Callable[[Layer], Tensor], layers: list[Layer]) -> list[Tensor]:
    """Calls it for each layer: numpy lets go of the interpreter while it works, on one core."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(function, layers))


def multiply(gradient: Tensor | None, mask: Tensor) -> Tensor:
    """Zeroes in place what the mask leaves out; a NaN stays one."""
    assert gradient is not None
    if not _fit_for_numpy(gradient):
        return gradient.mul_(mask)
    values = gradient.detach().numpy()
    np.multiply(values, mask.numpy(), out=values)
    return gradient


def _fit_for_numpy(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)


def _not_below(flat: Tensor, threshold: Tensor) -> Tensor:
    if _fit_for_numpy(flat):
        return torch.from_numpy(flat.detach().numpy() >= threshold.numpy())  # half the time of torch's
    return flat >= threshold


def _positions(mask: Tensor, count: int | None) -> Tensor:
    """Indices [k] of the set elements of a mask [n]; where their number is known, without a synchronisation."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))  # several times faster than nonzero
    if count is None:
        return mask.nonzero().squeeze(1)
    return torch.nonzero_static(mask, size=count).squeeze(1)


def _all_finite(scores: dict[Layer, Tensor]) -> bool:
    gradients = [layer.weight.grad for layer in scores]
    return all(bool(gradient.isfinite().all()) for gradient in gradients if gradient is not None)


def _squared_norm(layers: list[Layer]) -> Tensor:
    return torch.stack(
        [layer.weight.grad.float().square().sum() for layer in layers if layer.weight.grad is not None]
    ).sum()
