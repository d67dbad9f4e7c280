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
