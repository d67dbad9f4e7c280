"""What every estimator must do: a new file in sparsity/estimators is tested by being there."""

import copy
import pickle

import pytest
import torch
from torch import nn

from sbp_tune.config import SparsityConfig, plugin_names
from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.sparsity import sparsify

ESTIMATORS = plugin_names("sparsity/estimators")
VARIANTS = [
    *((name, {}) for name in ESTIMATORS),
    ("mask", {"scope": "global", "min_per_layer": 0.05}),
    ("mask", {"reselect_every": 2, "score": "abs_weight_grad"}),
    ("mask", {"reselect_every": "epoch", "score": "grad_squared"}),
    ("layer", {"select": "random", "scaled": True}),
    ("layer", {"select": "norm", "reselect_every": 2}),
    ("channel_block", {"products": "both", "select": "random", "scaled": True}),
    ("channel_block", {"select": "norm", "exploration": 0.5}),
    ("channel_topk", {"products": "both"}),
    ("channel_topk", {"products": "both", "state": "zero_grad"}),
]
IDS = ["-".join([name, *map(str, more.values())]) for name, more in VARIANTS]


@pytest.mark.parametrize(("estimator", "more"), VARIANTS, ids=IDS)
def test_keeping_everything_is_dense(estimator, more, model, batch, config_of, train):
    dense = copy.deepcopy(model)
    expected = train(dense, sparsify(dense, SparsityConfig(estimator="dense")), batch)
    assert train(model, sparsify(model, config_of(estimator, 1.0, **more)), batch) == pytest.approx(expected)
    for (name, mine), theirs in zip(model.named_parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=name)


@pytest.mark.parametrize(("estimator", "more"), VARIANTS, ids=IDS)
def test_it_trains_and_leaves_the_model_as_it_was(estimator, more, model, batch, config_of, train):
    keys, hooks = list(model.state_dict()), hook_count(model)
    handle = sparsify(model, config_of(estimator, 0.5, **more))
    losses = train(model, handle, batch, steps=8)
    assert losses[-1] < max(losses)
    assert list(model.state_dict()) == keys
    handle.remove()
    assert hook_count(model) == hooks
    assert not any("forward" in module.__dict__ for module in model.modules())
    flops = handle.executed_flops
    model(batch[0]).sum().backward()
    assert handle.executed_flops == flops
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("estimator", "more"), VARIANTS, ids=IDS)
def test_a_restored_handle_goes_on_bit_for_bit(estimator, more, model, batch, config_of, train):
    config = config_of(estimator, 0.5, schedule="linear", k=0.1, **more)
    handle = sparsify(model, config)
    train(model, handle, batch, epochs=range(2))
    handle.remove()
    other = copy.deepcopy(model)
    first, second = sparsify(model, config), sparsify(other, config, seed=1)
    state = handle.state_dict()
    first.load_state_dict(state)
    second.load_state_dict(pickle.loads(pickle.dumps(copy.deepcopy(state))))
    assert train(model, first, batch, epochs=[2], steps=4) == train(other, second, batch, epochs=[2], steps=4)
    assert first.executed_flops == second.executed_flops > handle.executed_flops


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", ["channels_last", "bf16", "fp16"])
def test_layouts_and_precisions(estimator, kind, model, batch, config_of):
    images, labels = batch
    if kind == "channels_last":
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    dtype = torch.float16 if kind == "fp16" else torch.bfloat16
    scaler = torch.amp.GradScaler("cpu", enabled=kind == "fp16", init_scale=256.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    handle = sparsify(model, config_of(estimator))
    handle.start_epoch(0, 1)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        kept = handle.select(torch.arange(8))
        with torch.autocast("cpu", dtype, enabled=kind != "channels_last"):
            losses = nn.functional.cross_entropy(model(images[kept]), labels[kept], reduction="none")
        handle.record(kept, losses)
        scaler.scale(losses.mean()).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        handle.before_step(optimizer)
        scaler.step(optimizer)
        scaler.update()
    parameters = dict(model.named_parameters())
    assert all(parameter.dtype is torch.float32 and parameter.isfinite().all() for parameter in parameters.values())
    assert any(not torch.equal(before[name], parameter) for name, parameter in parameters.items())


@pytest.mark.parametrize("estimator", ["batch_slice", "channel_block", "grid", "layer"])
def test_accumulated_halves_are_the_whole(estimator, model, batch, attached):
    """One selection holds for a whole optimizer step; normalisation is off, for it sees half batches."""
    model.eval()
    images, labels = torch.cat([batch[0]] * 2), torch.cat([batch[1]] * 2)
    handle = attached(model, estimator)
    whole = [accumulate(model, images, labels, parts) for parts in (1, 2)]
    for name, gradient in whole[0].items():
        if estimator != "batch_slice" or gradient is None:  # a window of each half is not one of the whole
            assert (gradient is None) == (whole[1][name] is None)
            if gradient is not None:
                torch.testing.assert_close(gradient, whole[1][name], msg=name)
    handle.remove()


def accumulate(model, images, labels, parts):
    model.zero_grad(set_to_none=True)
    for x, y in zip(images.chunk(parts), labels.chunk(parts), strict=True):
        (nn.functional.cross_entropy(model(x), y) / parts).backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_copy_is_a_dense_model(estimator, model, batch, attached):
    handle = attached(model, estimator)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        flops = handle.executed_flops
        twin(batch[0]).sum().backward()
        assert handle.executed_flops == flops
        assert all(parameter.grad is not None for parameter in twin.parameters())
    torch.testing.assert_close(copy.deepcopy(model)(batch[0]), model(batch[0]))
    handle.remove()


def test_defaults_that_stay_dense_and_globs_that_override_them(model):
    handle = sparsify(model, SparsityConfig(estimator="layer", p0=0.5, include=("stem",), exclude=("block.*", "dil*")))
    assert handle.dense_layers == {
        "head": "last layer",
        **dict.fromkeys(("block.conv1", "block.conv2", "dilated"), "excluded by the config"),
    }
    handle.remove()
    assert not sparsify(model, SparsityConfig(estimator="mask")).dense_layers


def test_slower_layers_stay_dense_and_say_so(model, batch, config_of, train):
    handle = sparsify(model, config_of("grid", 0.25, auto_dense=True))
    train(model, handle, batch, epochs=[0])
    timed = {key.split(":")[0] for key in handle.auto_dense.times}
    assert timed == {"block.conv1", "block.conv2", "grouped", "depthwise", "dilated", "down"}
    handle.auto_dense.times = dict.fromkeys(handle.auto_dense.times, (1.0, 2.0))
    assert handle.dense_layers["down"].startswith("not clearly faster: 2000.06 ms sparse, 1000.00 ms dense")
    before = handle.executed_flops_by_layer["down"]["grad_weight"]
    model(batch[0]).sum().backward()
    assert handle.executed_flops_by_layer["down"]["grad_weight"] - before == 2 * 8 * 16 * 36 * 72


def test_branch_drop_needs_branches():
    with pytest.raises(InputError, match="branch_drop needs residual branches, and Linear has none"):
        sparsify(nn.Linear(2, 2), SparsityConfig(estimator="branch_drop"))


def test_sample_says_when_the_loop_does_not_ask_it(model, batch, attached):
    handle = attached(model, "sample")
    model(batch[0]).sum().backward()
    with pytest.raises(SbpTuneError, match=r"handle.select\(indices\)"):
        handle.before_step(torch.optim.SGD(model.parameters(), lr=0.1))


def hook_count(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())
