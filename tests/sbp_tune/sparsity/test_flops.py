import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sbp_tune.config import SparsityConfig
from sbp_tune.sparsity import sparsify


def executed(model, batch, **config):
    handle = sparsify(model, SparsityConfig(**config))
    model(batch[0]).sum().backward()
    handle.remove()
    return handle


def test_dense_agrees_with_torch(model, batch):
    """Without groups: torch 2.15's counter takes grad_weight of a grouped convolution for an ungrouped one."""
    model.grouped, model.depthwise = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    with FlopCounterMode(display=False) as counter:
        model(batch[0]).sum().backward()
    assert executed(model, batch).executed_flops == counter.get_total_flops()


@pytest.mark.parametrize("estimator", ["batch_slice", "grid", "layer", "prefix", "branch_drop"])
def test_sparse_agrees_with_torch(estimator, model, batch, attached):
    model.grouped, model.depthwise = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    handle = attached(model, estimator, 0.25)
    with FlopCounterMode(display=False) as counter:
        model(batch[0]).sum().backward()
    assert handle.executed_flops == counter.get_total_flops()
    handle.remove()


# grad_input and grad_weight of `dilated`, as parts of its forward pass, at p = 0.25
PARTS = {
    "batch_slice": (1, 0.25),
    "grid": (1, 0.25),
    "channel_block": (1, 0.5),  # one of its two blocks of 4 channels
    "channel_topk": (1, 0.5),
    "mask": (1, 1),
    "sample": (1, 1),  # what was not selected is not in the batch at all
    "dense": (1, 1),
}


@pytest.mark.parametrize(("estimator", "parts"), PARTS.items(), ids=PARTS)
def test_each_estimator_agrees_with_its_formula(estimator, parts, model, batch, attached):
    handle = attached(model, estimator, 0.25)
    model(batch[0]).sum().backward()
    counts = handle.executed_flops_by_layer["dilated"]
    forward = 2 * 8 * 8 * 144 * 72
    assert counts == {"forward": forward, "grad_input": parts[0] * forward, "grad_weight": parts[1] * forward}
    handle.remove()


@pytest.mark.parametrize("name", ["dilated", "grouped", "depthwise", "down"])
@pytest.mark.parametrize("estimator", ["channel_block", "channel_topk"])
def test_both_products_of_some_channels(estimator, name, model, batch, attached):
    handle = attached(model, estimator, 0.5, products="both")
    model(batch[0]).sum().backward()
    counts = handle.executed_flops_by_layer[name]
    assert counts["grad_input"] == counts["grad_weight"] == counts["forward"] / 2
    handle.remove()


def test_variance_counts_its_probes(model, batch, config_of, train):
    handle = sparsify(model, config_of("variance", 0.5, probe_every=2))
    by_step = []
    for steps in (1, 1):
        before = handle.executed_flops_by_layer.get("dilated", {}).get("grad_weight", 0)
        train(model, handle, batch, epochs=[0], steps=steps)
        by_step.append(handle.executed_flops_by_layer["dilated"]["grad_weight"] - before)
    forward = handle.executed_flops_by_layer["dilated"]["forward"] / 2
    assert by_step[0] >= 2 * forward and by_step[1] <= forward / 2


def test_the_first_layer_has_no_grad_input(model, batch):
    counts = executed(model, batch).executed_flops_by_layer
    assert "grad_input" not in counts["stem"]
    assert counts["stem"]["forward"] == counts["stem"]["grad_weight"] == 2 * 8 * 8 * 144 * 27
    assert counts["grouped"]["grad_input"] == 2 * 8 * 8 * 144 * 36


def test_a_shared_layer_counts_each_use(model, batch):
    assert executed(model, batch).executed_flops_by_layer["shared"]["forward"] == 2 * (2 * 8 * 16 * 16)


def test_a_frozen_weight_has_no_grad_weight(model, batch):
    model.dilated.weight.requires_grad_(False)
    counts = executed(model, batch).executed_flops_by_layer["dilated"]
    assert "grad_weight" not in counts and counts["grad_input"] > 0


def test_validation_is_not_counted(model, batch):
    handle = sparsify(model, SparsityConfig())
    with torch.no_grad():
        model(batch[0])
    assert handle.executed_flops == 0


def test_a_backward_that_never_runs_is_not_counted(model, batch):
    handle = sparsify(model, SparsityConfig())
    model(batch[0])
    assert {product for counts in handle.executed_flops_by_layer.values() for product in counts} == {"forward"}


def test_mask_saves_no_compute(model, batch):
    mask = executed(model, batch, estimator="mask", p0=0.05).executed_flops
    assert mask == executed(model, batch).executed_flops
