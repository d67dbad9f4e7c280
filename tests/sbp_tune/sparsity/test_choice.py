"""Which layers and other parameters may be sparse, by default and by glob."""

import copy

import pytest
import torch
from torch import nn

from sbp_tune.config import SparsityConfig
from sbp_tune.errors import InputError
from sbp_tune.sparsity import sparsify

TAKES_PARAMETERS = ("mask", "layer")


def sparse_layers(model, **values):
    handle = sparsify(model, SparsityConfig.model_validate({"p0": 0.5, **values}))
    handle.remove()
    return handle.sparse_layers


def test_a_module_name_and_a_glob_mean_what_lies_in_it(model):
    for pattern in ("block", "block.*", "bl*", "*.conv?"):
        found = sparsify(model, SparsityConfig(estimator="layer", exclude=(pattern,)))
        found.remove()
        excluded = {name for name, why in found.dense_layers.items() if why == "excluded by the config"}
        assert excluded == {"block.conv1", "block.conv2"}, pattern


@pytest.mark.parametrize("estimator", TAKES_PARAMETERS)
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.bias", ["norm.bias", "block.bn1.bias", "block.bn2.bias", *(f"{name}.bias" for name in
          ("grouped", "depthwise", "dilated", "down", "shared", "head"))]),
        ("norm", ["norm.weight", "norm.bias"]),
        ("*.bn?.weight", ["block.bn1.weight", "block.bn2.weight"]),
        ("*.bn1", ["block.bn1.weight", "block.bn1.bias"]),
        ("down.bias", ["down.bias"]),
        ("block.*", []),  # means its layers, which are sparse as it is
    ],
)  # fmt: skip
def test_include_reaches_biases_and_normalisation(estimator, pattern, expected, model):
    plain = sparse_layers(model, estimator=estimator)
    found = sparse_layers(model, estimator=estimator, include=(pattern,))
    assert set(found) - set(plain) == set(expected)
    order = [name.removesuffix(".weight") for name, _ in model.named_parameters()]
    places = [order.index(name.removesuffix(".weight")) for name in found]
    assert places == sorted(places)


def test_mask_zeroes_and_freezes_included_parameters(model, batch, gradients, attached):
    dense = gradients(model, batch)["down.bias"]
    handle = attached(model, "mask", 0.25, include=["down.bias", "norm"], layers={"overrides": {"norm.weight": 0.5}})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    model.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
    before = copy.deepcopy(model.state_dict())
    handle.before_step(optimizer)
    kept = dense.abs().topk(4).indices
    assert set(model.down.bias.grad.nonzero().flatten().tolist()) == set(kept.tolist())
    assert int(model.norm.weight.grad.count_nonzero()) == 4 and int(model.norm.bias.grad.count_nonzero()) == 2
    optimizer.step()
    moved = (model.down.bias != before["down.bias"]).nonzero().flatten()
    assert set(moved.tolist()) == set(kept.tolist())


@pytest.mark.parametrize("scaled", [False, True])
def test_layer_freezes_included_parameters_and_scales_the_selected(scaled, model, batch, gradients, attached):
    model.eval()
    dense = gradients(model, batch)
    more = {"select": "random", "scaled": scaled}
    handle = attached(model, "layer", 0.5, include=["*.bias", "*.bn?", "norm"], **more)
    model.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
    handle.before_step(torch.optim.SGD(model.parameters(), lr=0.1))
    included = {name for name in handle.sparse_layers if "." in name and name in dense}
    chosen = {name for name in included if model.get_parameter(name).grad is not None}
    assert 0 < len(chosen) < len(included)
    for name in chosen:
        torch.testing.assert_close(model.get_parameter(name).grad, dense[name] * (2 if scaled else 1), msg=name)


@pytest.mark.parametrize("estimator", ["batch_slice", "grid", "channel_block", "channel_topk", "variance"])
def test_an_include_that_the_estimator_cannot_use_is_an_error(estimator, model):
    message = rf"sparsity.include: '\*.bias' matches only .*; {estimator} computes .* mask and layer can include them"
    with pytest.raises(InputError, match=message):
        sparse_layers(model, estimator=estimator, include=("*.bias",))
    assert sparse_layers(model, estimator=estimator, exclude=("*.bias", "norm"))  # they are dense: so it is


@pytest.mark.parametrize("estimator", ["prefix", "branch_drop", "budget"])
def test_what_is_cut_takes_its_normalisation_along(estimator, model):
    with pytest.raises(InputError, match=f"{estimator} freezes them with their layers"):
        sparse_layers(model, estimator=estimator, include=("norm",))
    with pytest.raises(InputError, match=f"which {estimator} cuts off together with the layers around them"):
        sparse_layers(model, estimator=estimator, exclude=("norm",))


@pytest.mark.parametrize("estimator", ["dense", "sample"])
def test_a_baseline_inherits_globs_that_mean_nothing_to_it(estimator, model):
    sparse_layers(model, estimator=estimator, include=("*.bias",))


def test_an_override_of_what_is_dense_is_an_error(model):
    overrides = {"estimator": "mask", "layers": {"overrides": {"*.bias": 0.1}}}
    with pytest.raises(InputError, match=r"sparsity.layers.overrides: '\*.bias' .* are dense; include them too"):
        sparse_layers(model, **overrides)
    assert "down.bias" in sparse_layers(model, **overrides, include=("*.bias",))


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("blok.*", r"did you mean block.\*\?"),
        ("block.conv3", r"did you mean block.conv2 or block.conv1\?"),
        ("*.bais", r"did you mean \*.bias\?"),
        ("dilatd", r"did you mean dilated\?"),
        ("zzz", r"the layers are: stem, block.conv1, block.conv2, grouped, \.\.\., head"),
    ],
)
@pytest.mark.parametrize("key", ["include", "exclude", "overrides"])
def test_a_glob_that_matches_nothing_is_an_error_with_the_near_names(key, pattern, hint, model):
    values = {"layers": {"overrides": {pattern: 0.5}}} if key == "overrides" else {key: [pattern]}
    with pytest.raises(InputError, match=rf"{key}: .* matches no convolution or linear layer .*; {hint}"):
        sparse_layers(model, estimator="layer", **values)


def tied():
    net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
    net[1].weight = net[2].weight
    torch.nn.utils.parametrizations.weight_norm(net[3])
    return net


def test_weights_that_are_not_the_layers_own_stay_dense():
    assert sparsify(tied(), SparsityConfig(estimator="layer", p0=0.5, include=("*",))).dense_layers == {
        "1": "its weight is another module's too",
        "2": "its weight is another module's too",
        "3": "its weight is computed, not a parameter",
    }


def test_mask_needs_no_more_than_a_parameter():
    assert sparsify(tied(), SparsityConfig(estimator="mask", p0=0.5)).dense_layers == {
        "2": "its weight is another layer's too, and masked there",
        "3": "its weight is computed, not a parameter",
    }
