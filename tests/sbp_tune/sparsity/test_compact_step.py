"""What was not selected does not move, and neither does its optimizer state."""

import copy

import pytest
import torch
from torch import nn

from sbp_tune.sparsity import sparsify
from sbp_tune.sparsity.compact_step import CompactStep, Elements, Rows
from sbp_tune.sparsity.parts import Part

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, foreach=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
    "fused": lambda p: torch.optim.Adam(p, lr=0.1, fused=True, maximize=True),
    "foreach": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9, centered=True, foreach=True),
    "fused_sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, fused=True, maximize=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
}
ROWS = Part(((1, 3),)), Part(((4, 5), (0, 2))), Part(torch.tensor([3, 0]))
SELECTIONS = {
    "range": (Rows(ROWS[0]), [1, 2]),
    "round the end": (Rows(ROWS[1]), [4, 0, 1]),
    "index": (Rows(ROWS[2]), [3, 0]),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize(("selection", "rows"), SELECTIONS.values(), ids=SELECTIONS)
def test_selected_rows_step_as_alone_and_the_others_stay(make, selection, rows):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, 3))
    alone = nn.Parameter(weight.detach()[rows].clone())
    optimizer, theirs, compact = make([weight]), make([alone]), CompactStep()
    before = weight.detach().clone()
    for _ in range(3):
        weight.grad = torch.randn(5, 3)
        alone.grad = weight.grad[rows].clone()
        compact.select([optimizer], {weight: selection})
        optimizer.step()
        theirs.step()
    torch.testing.assert_close(weight.detach()[rows], alone.detach())
    others = [row for row in range(5) if row not in rows]
    assert torch.equal(weight[others], before[others])
    assert optimizer.param_groups[0]["params"] == [weight] and list(optimizer.state) == [weight]
    for value in optimizer.state[weight].values():
        if isinstance(value, torch.Tensor) and value.shape == weight.shape:
            assert (value[others] == 0).all() and (value[rows] != 0).any()
    weight.grad = torch.randn(5, 3)
    optimizer.step()  # no selection: everything moves again
    assert not torch.equal(weight[others], before[others])


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize(
    "estimator", ["mask", "channel_block", "channel_topk", "layer", "branch_drop", "prefix", "budget"]
)
def test_freeze_moves_nothing(make, estimator, model, batch, config_of, train):
    if make is OPTIMIZERS["fused_sgd"] and estimator in ("layer", "branch_drop"):
        pytest.skip("torch's fused SGD wants the momentum of all weights to begin in the same step")
    handle = sparsify(model, config_of(estimator, 0.3))
    optimizer = make(list(model.parameters()))
    train(model, handle, batch, epochs=[0], steps=3, optimizer=optimizer)  # momentum everywhere
    handle.start_epoch(1, 2)
    if estimator == "budget":  # its first step of an epoch is dense
        handle.estimator._watching, handle.estimator._undecided = False, True
    for _ in range(2):
        before = copy.deepcopy((dict(model.named_parameters()), optimizer.state_dict()["state"]))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
        handle.before_step(optimizer)
        selected = dict(handle._compact_step._selected)
        optimizer.step()
        frozen = moved = 0
        for place, (name, parameter) in enumerate(model.named_parameters()):
            still = torch.full_like(parameter, parameter.grad is None, dtype=torch.bool)
            if parameter in selected:
                still[:] = True
                selected[parameter].put(still, torch.zeros_like(selected[parameter].take(still)))
            assert torch.equal(parameter[still], before[0][name][still]), name
            for key, value in optimizer.state[parameter].items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    old = before[1].get(place, {}).get(key, torch.zeros_like(value))
                    assert torch.equal(value[still], old[still]), (name, key)
            frozen, moved = frozen + int(still.sum()), moved + int((parameter != before[0][name]).sum())
        assert frozen > 0 and moved > 0


def test_zero_grad_is_the_papers_text_and_does_move(model, batch, config_of, train):
    handle = sparsify(model, config_of("layer", 0.3, state="zero_grad"))
    optimizer = OPTIMIZERS["sgd"](list(model.parameters()))
    train(model, handle, batch, epochs=[0], steps=3, optimizer=optimizer)
    handle.start_epoch(1, 2)
    model.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
    skipped = [parameter for parameter in model.parameters() if parameter.grad is None]
    before = [parameter.detach().clone() for parameter in skipped]
    handle.before_step(optimizer)
    assert skipped and all((parameter.grad == 0).all() for parameter in skipped)
    optimizer.step()
    assert not any(torch.equal(*pair) for pair in zip(before, skipped, strict=True))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_elements_whatever_the_layout_of_the_state(layout):
    weight = nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=layout))
    chosen = torch.zeros(4, 3, 2, 2, dtype=torch.bool).to(memory_format=layout)
    chosen[0, 1], chosen[3, 2, 1, 0] = True, True
    flat = chosen.permute(0, 2, 3, 1) if layout is torch.channels_last else chosen
    selection = Elements(flat.reshape(-1).nonzero().squeeze(1), chosen)
    state = torch.zeros(4, 3, 2, 2)  # laid out otherwise, as after loading a checkpoint
    values = selection.take(weight.detach())
    assert sorted(values.tolist()) == sorted(weight[chosen].tolist())
    selection.put(state, values)
    torch.testing.assert_close(state, torch.where(chosen, weight.detach(), torch.zeros(())))


def test_a_step_that_fails_or_is_skipped_leaves_the_optimizer_whole():
    weight = nn.Parameter(torch.randn(4, 2))
    optimizer, compact = torch.optim.SGD([weight], lr=0.1), CompactStep()
    before = weight.detach().clone()
    weight.grad = torch.ones(4, 2)
    compact.select([optimizer], {weight: Rows(Part(((0, 1),)))})  # a scaler skips this step
    compact.select([optimizer], {weight: Rows(Part(((1, 2),)))})
    optimizer.param_groups[0]["lr"] = None
    with pytest.raises(TypeError):
        optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.1
    compact.select([optimizer], {weight: Rows(Part(((1, 2),)))})
    optimizer.step()
    assert optimizer.param_groups[0]["params"] == [weight]
    assert (weight != before).any(1).tolist() == [False, True, False, False]
    compact.remove()
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
