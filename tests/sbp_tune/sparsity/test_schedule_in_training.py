"""What the schedules need from a handle: steps, epochs and the norm that was kept."""

import copy

import pytest
import torch

from sbp_tune.sparsity import sparsify


@pytest.mark.parametrize("estimator", ["mask", "channel_topk"])
def test_adaptive_closes_its_loop(estimator, model, batch, config_of, train):
    handle = sparsify(model, config_of(estimator, 0.3, schedule="adaptive", norm_share=0.8, p_min=0.01, block=1))
    kept = []
    for epoch in range(4):
        train(model, handle, batch, epochs=[epoch])
        kept.append(handle.keep_fraction)
    assert kept[0] == 0.3 and len(set(kept)) > 1
    share = handle.estimator.norm_share()
    assert share == pytest.approx(0.8, abs=0.15)


@pytest.mark.parametrize("estimator", ["mask", "channel_topk"])
def test_adaptive_resumes_where_it_was(estimator, model, batch, config_of, train):
    config = config_of(estimator, 0.3, schedule="adaptive", norm_share=0.8, p_min=0.01, block=1)
    handle = sparsify(model, config)
    train(model, handle, batch, epochs=[0])
    other = sparsify(copy.deepcopy(model), config)
    other.load_state_dict(copy.deepcopy(handle.state_dict()))
    for each in (handle, other):
        each.start_epoch(1, 4)
    assert other.keep_fraction == handle.keep_fraction != 0.3


def test_p_may_change_with_every_step(model, batch, config_of, train):
    handle = sparsify(model, config_of("mask", 0.9, schedule="linear", p_min=0.1, per="step"))
    seen = []
    for epoch in range(3):
        handle.start_epoch(epoch, 3, steps=2)
        for _ in range(2):
            seen.append(handle.keep_fraction)
            step(model, handle, batch)
    assert seen == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1, 0.1])
    handle.remove()
    by_itself = sparsify(model, handle.config)
    train(model, by_itself, batch, epochs=[0], steps=2)  # it has now counted the steps of an epoch
    by_itself.start_epoch(1, 3)
    step(model, by_itself, batch)
    assert by_itself.keep_fraction == pytest.approx(0.3)


def step(model, handle, batch):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.zero_grad(set_to_none=True)
    model(batch[0]).square().mean().backward()
    handle.before_step(optimizer)
    optimizer.step()
