"""What every estimator must do: a new file in sparsity/estimators is tested by being there."""

import copy

import pytest
import torch
from torch import nn

from sbp_tune.config import SparsityConfig, plugin_names
from sbp_tune.sparsity import sparsify

ESTIMATORS = plugin_names("sparsity/estimators")


def train(model, handle, batch, epochs=range(3), steps=2):
    """A few SGD steps with momentum; the losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    losses = []
    for epoch in epochs:
        handle.start_epoch(epoch, 4)
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
            loss.backward()
            handle.before_step(optimizer)
            optimizer.step()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_keeping_everything_is_dense(estimator, model, batch):
    dense = copy.deepcopy(model)
    expected = train(dense, sparsify(dense, SparsityConfig(estimator="dense")), batch)
    assert train(model, sparsify(model, SparsityConfig(estimator=estimator, p0=1.0)), batch) == pytest.approx(expected)
    for (name, mine), theirs in zip(model.named_parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=name)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_it_trains_and_leaves_the_model_as_it_was(estimator, model, batch):
    keys, hooks = list(model.state_dict()), hook_count(model)
    handle = sparsify(model, SparsityConfig(estimator=estimator, p0=0.5))
    losses = train(model, handle, batch, steps=8)
    assert losses[-1] < losses[0]
    assert list(model.state_dict()) == keys
    handle.remove()
    assert hook_count(model) == hooks
    flops = handle.executed_flops
    model(batch[0]).sum().backward()
    assert handle.executed_flops == flops


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_restored_handle_goes_on_bit_for_bit(estimator, model, batch):
    config = SparsityConfig(estimator=estimator, p0=0.5, schedule="linear", k=0.1)
    handle = sparsify(model, config)
    train(model, handle, batch, epochs=range(2))
    handle.remove()
    other = copy.deepcopy(model)
    first, second = sparsify(model, config), sparsify(other, config)
    first.load_state_dict(handle.state_dict())
    second.load_state_dict(copy.deepcopy(handle.state_dict()))
    assert train(model, first, batch, epochs=[2]) == train(other, second, batch, epochs=[2])
    assert first.executed_flops == second.executed_flops > handle.executed_flops


def hook_count(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())
