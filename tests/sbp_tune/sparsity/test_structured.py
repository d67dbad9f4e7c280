"""Structured estimators equal the dense gradient under a mask, or a dense model that is cut by hand."""

import copy

import pytest
import torch
from torch import nn

from sbp_tune.sparsity import sparsify
from sbp_tune.sparsity.estimators.prefix import modules_below


class Chain(nn.Module):
    """Two convolutions, the last grouped, and a head, without nonlinearity: references are easily made."""

    def __init__(self, groups):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, padding=1, stride=2, groups=groups)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.second(self.first(x)).mean((2, 3)))


def reference(model, batch, rows, both):
    """Gradients when `second` lets only some output channels of its grad_output into its products."""
    model = copy.deepcopy(model)
    keep = torch.zeros(16, 1, 1)
    keep[rows] = 1
    x = model.first(batch[0])
    weight = model.second.weight
    masked = torch.where(keep[..., None].bool(), weight, weight.detach())
    y = model.second._conv_forward(x, masked, model.second.bias)
    if both:
        cut = model.second._conv_forward(x.detach(), masked, model.second.bias)
        y = keep * y + (1 - keep) * cut
    nn.functional.cross_entropy(model.head(y.mean((2, 3))), batch[1]).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("products", ["weights", "both"])
@pytest.mark.parametrize("estimator", ["channel_block", "channel_topk"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_channels_equal_the_masked_dense_gradient(estimator, products, groups, layout, batch, gradients, attached):
    torch.manual_seed(0)
    model = Chain(groups).to(memory_format=layout)
    batch = (batch[0].to(memory_format=layout), batch[1])
    handle = attached(model, estimator, 0.5, products=products)
    found = gradients(model, batch)
    handle.remove()
    rows = found["second.weight"].abs().flatten(1).sum(1) > 0
    assert rows.sum() == 8
    for name, expected in reference(model, batch, rows, products == "both").items():
        if name != "second.bias":  # dense, as it was
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6, msg=name)
    torch.testing.assert_close(found["second.bias"], gradients(model, batch)["second.bias"])


def test_topk_keeps_the_channels_of_largest_gradient(batch, gradients, attached):
    torch.manual_seed(0)
    model = Chain(1)
    with torch.no_grad():
        model.head.weight[:, [0, 1, 3, 4, 6, 7, 8, 9, 10, 12, 13, 15]] *= 1e-3
    handle = attached(model, "channel_topk", 0.25)
    rows = gradients(model, batch)["second.weight"].abs().flatten(1).sum(1) > 0
    assert rows.nonzero().flatten().tolist() == [2, 5, 11, 14]
    handle.remove()


def test_cyclic_blocks_take_turns(batch, gradients, attached):
    model = Chain(1)
    handle = attached(model, "channel_block", 0.25)
    seen = torch.zeros(16)
    for _ in range(4):
        seen += gradients(model, batch)["second.weight"].abs().flatten(1).sum(1) > 0
        handle.estimator.draw()
    assert (seen == 1).all()
    handle.remove()


def test_blocks_by_norm_return_to_the_greatest(batch, gradients, attached):
    torch.manual_seed(0)
    model = Chain(1)
    with torch.no_grad():
        model.head.weight[:, 4:8] *= 100
    handle = attached(model, "channel_block", 0.25, select="norm", exploration=0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for _ in range(6):  # four to see each block once
        model.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
        rows = model.second.weight.grad.abs().flatten(1).sum(1) > 0
        handle.before_step(optimizer)
    assert rows.nonzero().flatten().tolist() == [4, 5, 6, 7]
    handle.remove()


def test_a_dropped_branch_is_a_detached_one(model, batch, gradients, attached):
    model.eval()
    handle = attached(model, "branch_drop", 0.01)
    found, flops = gradients(model, batch), handle.executed_flops_by_layer["block.conv1"]
    handle.remove()
    assert flops.keys() == {"forward"}
    expected = gradients(model, batch)
    for name, gradient in found.items():
        if name.startswith("block."):
            assert gradient is None
    twin = copy.deepcopy(model)
    block = twin.block
    block.forward = lambda x: torch.relu(x + block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x))))).detach())
    expected = gradients(twin, batch)
    torch.testing.assert_close(found["stem.weight"], expected["stem.weight"])


def test_below_a_prefix_nothing_has_a_gradient(model, batch, gradients, config_of, train):
    model.eval()
    handle = sparsify(model, config_of("prefix", 0.3))
    train(model, handle, batch, epochs=[0])
    handle.start_epoch(1, 2)
    found = gradients(model, batch)
    handle.remove()
    below = {name for name, gradient in found.items() if gradient is None}
    assert {"stem.weight", "norm.weight", "norm.bias", "block.conv1.weight"} <= below
    assert "head.weight" not in below
    for name, expected in gradients(model, batch).items():
        if name not in below:
            torch.testing.assert_close(found[name], expected, msg=name)


def test_the_cut_is_nearest_to_the_fraction():
    flops = {"a": 50, "b": 30, "c": 20}
    order = ["a", "norm", "b", "c"]
    assert modules_below(1.0, flops, order, {"a", "b"}) == set()
    assert modules_below(0.5, flops, order, {"a", "b"}) == {"a", "norm"}
    assert modules_below(0.2, flops, order, {"a", "b"}) == {"a", "norm", "b"}
    assert modules_below(0.01, flops, order, {"b"}) == set()  # the first layer must learn


def test_a_layer_that_is_not_selected_has_no_gradient_and_grad_input_is_exact(model, batch, gradients, attached):
    model.eval()
    dense = gradients(model, batch)
    handle = attached(model, "layer", 0.3)
    found = gradients(model, batch)
    handle.remove()
    skipped = {name for name, gradient in found.items() if gradient is None}
    assert skipped and all(name.endswith(".weight") for name in skipped)
    for name in found.keys() - skipped:
        torch.testing.assert_close(found[name], dense[name], msg=name)


def test_sample_keeps_the_highest_losses_and_the_longest_unseen(model, config_of):
    handle = sparsify(model, config_of("sample", 0.5, exploration=0.25))
    handle.start_epoch(0, 1)
    numbers = torch.arange(100, 108)
    handle.record(numbers, torch.tensor([8.0, 7, 6, 5, 4, 3, 2, 1]))
    handle.record(numbers[1:], torch.tensor([7.0, 6, 5, 4, 3, 2, 1]))
    handle.record(numbers[:7], torch.tensor([8.0, 7, 6, 5, 4, 3, 2]))
    assert handle.select(numbers).tolist() == [0, 1, 2, 7]
    assert handle.select(torch.arange(106, 110)).tolist() == [2, 3]  # never seen come first
    assert handle.select(numbers, torch.arange(8.0)).tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("estimator", ["batch_slice", "grid", "channel_block", "channel_topk", "layer", "variance"])
def test_all_but_the_sparse_weights_is_dense_in_every_layout_and_precision(
    estimator, layout, precision, model, batch, gradients, attached
):
    """Grouped, depthwise, dilated and strided layers with biases: grad_input and grad_bias are exact."""
    dtype = torch.float64 if precision == "fp64" else torch.float32
    model = model.eval().to(dtype, memory_format=layout)
    batch = (batch[0].to(dtype, memory_format=layout), batch[1])
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        dense = gradients(model, batch)
        handle = attached(model, estimator, 0.25)
        found = gradients(model, batch)
    sparse = {f"{name}.weight" for name in handle.sparse_layers}
    tolerance = {"fp32": (1e-4, 1e-6), "bf16": (5e-2, 2e-3), "fp64": (1e-9, 1e-12)}[precision]
    for name in found.keys() - sparse:
        torch.testing.assert_close(found[name], dense[name], rtol=tolerance[0], atol=tolerance[1], msg=name)
    for name in sparse:
        if found[name] is not None:
            assert found[name].dtype is dtype and found[name].stride() == dense[name].stride(), name
    handle.remove()
