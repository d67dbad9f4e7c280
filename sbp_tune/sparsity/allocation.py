"""Layer-wise keep fractions p_l from the keep fraction p of an epoch."""

from __future__ import annotations

from sbp_tune.config import SparsityConfig
from sbp_tune.sparsity.choice import matches

LEAST = 0.01
"""No profile gives a layer less: p_l = 0 would mean that it never learns."""


def layer_fractions(
    config: SparsityConfig, p: float, sparse: list[str], flops: dict[str, int] | None = None
) -> dict[str, float]:
    """p_l in [0.01, 1] of each sparse layer, by name, at an epoch whose keep fraction is p; all 1 where p is 1.

    sparse: names of the layers that may be sparse, in order of depth. flops: of one product, of all
    layers, dense ones too; None before the first batch, when `flops` gives p.

    uniform: p. ramp: p (1 + slope (2 d - 1)), depth d from 0 (first) to 1 (last). stages: p x the
    multiplier of the last pattern that matches. flops: (p F - D) / S with F the FLOPs of all layers, D of
    the dense and S of the sparse ones: then the executed fraction of the products is p. `overrides` win.
    """
    if p >= 1:
        return dict.fromkeys(sparse, 1.0)
    profile = config.layers.profile
    if profile == "ramp":
        depth = {name: place / max(len(sparse) - 1, 1) for place, name in enumerate(sparse)}
        fractions = {name: p * (1 + config.layers.slope * (2 * depth[name] - 1)) for name in sparse}
    elif profile == "stages":
        fractions = {name: p * _last_match(config.layers.stages, name, 1.0) for name in sparse}
    elif profile == "flops" and flops is not None:
        kept = _fraction_of_sparse(p, sparse, flops)
        fractions = dict.fromkeys(sparse, kept)
    else:
        fractions = dict.fromkeys(sparse, p)
    return {name: _last_match(config.layers.overrides, name, min(1.0, max(LEAST, fractions[name]))) for name in sparse}


def _fraction_of_sparse(p: float, sparse: list[str], flops: dict[str, int]) -> float:
    total = sum(flops.values())
    of_sparse = sum(flops.get(name, 0) for name in sparse)
    return (p * total - (total - of_sparse)) / max(of_sparse, 1)


def _last_match(values: dict[str, float], name: str, default: float) -> float:
    matching = [value for pattern, value in values.items() if matches(name, pattern)]
    return matching[-1] if matching else default
