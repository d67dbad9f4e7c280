"""Steps that a gradient scaler skips, checkpoints within an epoch, several and new optimizers."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from sbp_tune.config import plugin_names
from sbp_tune.errors import SbpTuneError
from sbp_tune.sparsity import sparsify

ESTIMATORS = plugin_names("sparsity/estimators")
PARTLY = {
    "mask": {},
    "channel_block": {"select": "norm"},
    "channel_topk": {},
    "layer": {"select": "norm"},
}


class Loop:
    """A training loop whose scaler meets an overflow where it is told to."""

    def __init__(self, model, handle, batch, make=None):
        self.model, self.handle, self.batch = model, handle, batch
        make = make or (lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3))
        self.optimizer = make(model.parameters())
        self.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)

    def step(self, overflow=False):
        kept = self.handle.select(torch.arange(8))
        self.optimizer.zero_grad()
        losses = nn.functional.cross_entropy(self.model(self.batch[0][kept]), self.batch[1][kept], reduction="none")
        self.handle.record(kept, losses)
        self.scaler.scale(losses.mean() * (float("inf") if overflow else 1.0)).backward()
        self.scaler.unscale_(self.optimizer)
        self.handle.before_step(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_skipped_step_moves_nothing_and_spoils_nothing(estimator, fused, model, batch, config_of):
    handle = sparsify(model.eval(), config_of(estimator))
    loop = Loop(model, handle, batch, lambda p: torch.optim.AdamW(p, lr=1e-3, fused=fused))
    handle.start_epoch(0, 2)
    for overflow in (True, False, False, True, True):
        before = copy.deepcopy((list(model.parameters()), loop.optimizer.state_dict()))
        loop.step(overflow)
        if overflow:
            assert all(map(torch.equal, before[0], model.parameters()))
            after = loop.optimizer.state_dict()
            assert after["param_groups"] == before[1]["param_groups"]
            for place, state in before[1]["state"].items():
                torch.testing.assert_close(after["state"][place], state)
    loop.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("every", [1, 3, "epoch"])
def test_an_overflow_is_never_ranked(every, model, batch, config_of):
    """The first step of a scaler often overflows; its mask would keep everything for the whole epoch."""
    handle = sparsify(model.eval(), config_of("mask", 0.1, reselect_every=every))
    loop = Loop(model, handle, batch)
    handle.start_epoch(0, 2)
    for overflow in (True, False, False, True, False, False):
        loop.step(overflow)
        if not overflow:
            assert int(model.down.weight.grad.count_nonzero()) == 116  # ceil(0.1 x 1152)


@pytest.mark.parametrize("estimator", ["mask", "channel_topk"])
def test_an_overflow_is_no_share_of_the_norm(estimator, model, batch, config_of):
    handle = sparsify(model.eval(), config_of(estimator, 0.3, schedule="adaptive", block=1, p_min=0.01))
    loop = Loop(model, handle, batch)
    handle.start_epoch(0, 3)
    loop.step(overflow=True)
    loop.step()
    handle.start_epoch(1, 3)
    assert 0.01 < handle.keep_fraction < 1 and handle.keep_fraction != 0.3
    loop.step(overflow=True)
    handle.start_epoch(2, 3)  # nothing was measured: as at first
    assert handle.keep_fraction == 0.3


def test_budget_watches_again_after_an_overflow(model, batch, config_of):
    handle = sparsify(model.eval(), config_of("budget"))
    loop = Loop(model, handle, batch)
    handle.start_epoch(0, 1)
    loop.step(overflow=True)
    assert handle.estimator._watching and not handle.estimator._importance.state_dict()
    loop.step()
    assert not handle.estimator._watching
    loop.step()
    assert any(parameter.grad is None for parameter in model.parameters())


def test_budget_and_norms_leave_weights_alone_that_cannot_learn(model, batch, config_of, train):
    model.dilated.weight.requires_grad_(False)
    handle = sparsify(model, config_of("budget"))
    train(model, handle, batch, epochs=[0], steps=3)
    assert "dilated" in handle.estimator._fixed | handle.estimator._without_graph
    handle.remove()
    handle = sparsify(model, config_of("layer", 0.3, select="norm", exploration=0.0))
    train(model, handle, batch, epochs=[0], steps=8)
    assert "dilated" not in handle.estimator._chosen and handle.estimator._chosen


@pytest.mark.parametrize("products", ["weights", "both"])
def test_scaled_means_nothing_with_norm(products, model, batch, config_of, train):
    for estimator in ("layer", "channel_block"):
        losses = []
        for scaled in (False, True):
            twin = copy.deepcopy(model)
            handle = sparsify(twin, config_of(estimator, select="norm", scaled=scaled, products=products))
            losses.append(train(twin, handle, batch))
        assert losses[0] == losses[1], estimator


@pytest.mark.parametrize("more", [{}, {"reselect_every": 3, "select": "random"}, {"reselect_every": "epoch"}], ids=str)
@pytest.mark.parametrize("per", ["step", "epoch"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_it_resumes_in_the_middle_of_an_epoch(estimator, per, more, model, batch, config_of):
    config = config_of(estimator, 0.9, schedule="linear", p_min=0.2, per=per, **more)
    handle = sparsify(model, config)
    loop = Loop(model, handle, batch)
    for epoch in range(2):
        handle.start_epoch(epoch, 4, steps=4)
        for _ in range(4 if epoch == 0 else 2):
            loop.step()
    twin = pickle.loads(pickle.dumps(model))
    other = sparsify(twin, config, seed=7)
    other.load_state_dict(pickle.loads(pickle.dumps(handle.state_dict())))
    resumed = Loop(twin, other, batch)
    resumed.optimizer.load_state_dict(copy.deepcopy(loop.optimizer.state_dict()))
    for _ in range(2):
        assert other.keep_fraction == handle.keep_fraction and other.keep_fractions == handle.keep_fractions
        loop.step()
        resumed.step()
    assert other.executed_flops == handle.executed_flops
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("estimator", PARTLY)
def test_two_optimizers_and_groups_of_their_own_lr(estimator, model, batch, config_of):
    """As one optimizer: freezing reaches every optimizer that is named."""
    twin = copy.deepcopy(model)
    results = []
    for net, split in ((model, False), (twin, True)):
        parameters = list(net.parameters())
        groups = [{"params": parameters[:9], "lr": 0.1}, {"params": parameters[9:], "lr": 0.01}]
        kinds = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True}
        optimizers = (
            [torch.optim.SGD([group], **kinds) for group in groups] if split else [torch.optim.SGD(groups, **kinds)]
        )
        handle = sparsify(net, config_of(estimator, 0.4, **PARTLY[estimator]))
        handle.start_epoch(0, 1)
        for _ in range(4):
            net.zero_grad()
            nn.functional.cross_entropy(net(batch[0]), batch[1]).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            handle.before_step(*optimizers)
            for optimizer in optimizers:
                optimizer.step()
        results.append(list(net.parameters()))
        assert [
            p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]
        ] == parameters
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_new_optimizer_takes_over_and_the_old_one_is_let_go(model, batch, config_of, train):
    handle = sparsify(model, config_of("channel_block", 0.3))
    old = torch.optim.Adam(model.parameters(), lr=0.01)
    train(model, handle, batch, epochs=[0], optimizer=old)
    gone = weakref.ref(old)
    del old
    gc.collect()
    assert gone() is None
    new = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    before = copy.deepcopy(model.dilated.weight)
    train(model, handle, batch, epochs=[1], steps=1, optimizer=new)
    assert (model.dilated.weight != before).flatten(1).any(1).sum() == 4


def test_state_that_cannot_be_split_is_an_error(model, batch, config_of, train):
    handle = sparsify(model, config_of("channel_block"))
    with pytest.raises(SbpTuneError, match=r"freeze found row_var of shape .* in Adafactor .*; allowed: zero_grad"):
        train(model, handle, batch, optimizer=torch.optim.Adafactor(model.parameters()))
    handle.remove()
    handle = sparsify(model, config_of("channel_block", state="zero_grad"))
    train(model, handle, batch, optimizer=torch.optim.Adafactor(model.parameters()))


def test_a_closure_that_calls_before_step_is_an_error(model, batch, config_of):
    handle = sparsify(model, config_of("channel_block"))
    handle.start_epoch(0, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        handle.before_step(optimizer)
        return loss

    with pytest.raises(SbpTuneError, match=r"before_step ran inside optimizer.step\(closure\)"):
        optimizer.step(closure)


def test_a_schedule_of_ones_own(model, batch, config_of, train):
    seen = []

    def schedule(epoch, epochs, previous, norm_share):
        seen.append((epoch, epochs, previous))
        return 0.25 if epoch else 0.5

    handle = sparsify(model, config_of("batch_slice", 0.9), schedule=schedule)
    train(model, handle, batch, epochs=range(2))
    assert handle.keep_fraction == 0.25 and set(handle.keep_fractions.values()) == {0.25}
    assert seen == [(0, 4, None), (1, 4, 0.5)]
