"""A key that is said to have no effect has none; the searched ones do something somewhere."""

import copy

import pytest
import torch

from sbp_tune.config import SparsityConfig, is_meaningless, plugin_names
from sbp_tune.sparsity import sparsify
from sbp_tune.sparsity_config import has_no_effect

OTHER = {
    "k": 0.2,
    "p_min": 0.3,
    "per": "step",
    "steps": {0: 0.2},
    "dense_every": 3,
    "norm_share": 0.5,
    "layers": {"profile": "ramp", "slope": 0.5},
    "state": "zero_grad",
    "reselect_every": 2,
    "scope": "global",
    "min_per_layer": 0.2,
    "score": "abs_weight_grad",
    "select": "norm",
    "exploration": 0.9,
    "scaled": True,
    "products": "both",
    "block": 2,
    "tau": 3.0,
    "probe_every": 2,
    "rho": 0.9,
    "p0": 0.2,
}


@pytest.mark.parametrize("estimator", [name for name in plugin_names("sparsity/estimators") if name != "budget"])
def test_keys_without_effect_change_nothing(estimator, model, batch, config_of, train):
    """Not for budget, whose times differ from run to run."""
    plain = config_of(estimator).model_dump()
    expected = outcome(plain, model, batch, train)
    silent = [key for key in OTHER if has_no_effect("layers.slope" if key == "layers" else key, plain)]
    for key in silent:
        if key == "layers" and plain["layers"]["profile"] == "uniform" and estimator not in ("prefix", "sample"):
            continue  # it is the profile that makes the slope matter
        assert outcome({**plain, key: OTHER[key]}, model, batch, train) == expected, key


def outcome(values, model, batch, train):
    torch.manual_seed(0)
    twin = copy.deepcopy(model)
    handle = sparsify(twin, SparsityConfig.model_validate(values))
    losses = train(twin, handle, batch, epochs=[0, 1])
    return losses, handle.executed_flops


@pytest.mark.parametrize(
    ("estimator", "key", "values", "meaningless"),
    [
        ("mask", "scope", {}, False),
        ("mask", "min_per_layer", {}, True),
        ("mask", "min_per_layer", {"scope": "global"}, False),
        ("mask", "layers.profile", {"scope": "global"}, True),
        ("layer", "scope", {}, True),
        ("layer", "scaled", {"select": "norm"}, True),
        ("layer", "exploration", {}, True),
        ("layer", "exploration", {"select": "norm"}, False),
        ("sample", "exploration", {}, False),
        ("grid", "layers.slope", {}, True),
        ("grid", "layers.slope", {"layers.profile": "ramp"}, False),
        ("grid", "layers.stages.layer1", {"layers.profile": "stages"}, False),
        ("grid", "layers.overrides.layer4.*", {}, False),
        ("grid", "state", {}, True),
        ("budget", "p0", {}, True),
        ("budget", "rho", {}, False),
        ("grid", "rho", {}, True),
        ("grid", "k", {"schedule": "cosine"}, True),
        ("grid", "p_min", {"schedule": "cosine"}, False),
        ("grid", "dense_tail", {}, False),
    ],
)
def test_what_has_no_effect(estimator, key, values, meaningless):
    values = {f"sparsity.{name}": value for name, value in {"estimator": estimator, **values}.items()}
    assert is_meaningless(f"sparsity.{key}", values) is meaningless
