"""Unbiased estimators: the mean over every choice they could make is the dense gradient, exactly."""

import itertools
from math import prod

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from sbp_tune.sparsity.estimators._channels import channel_products
from sbp_tune.sparsity.estimators.batch_slice import sliced_grad_weight
from sbp_tune.sparsity.estimators.grid import clipped_strides, grid_grad_weight, grid_strides
from sbp_tune.sparsity.estimators.layer import shares
from sbp_tune.sparsity.operators import operator_of
from sbp_tune.sparsity.parts import Part, window, windows
from sbp_tune.sparsity.products import Products


def bare(module, x):
    """Products of one layer with a random grad_output."""
    grad_output = torch.randn_like(module(x))
    return Products(operator_of(module), grad_output, x, module.weight.detach(), True, True, lambda *_: None)


def mean(tensors):
    return torch.stack(list(tensors)).mean(0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 2))
def test_batch_slices(samples, kept, groups):
    assume(kept <= samples)
    module = nn.Conv2d(2 * groups, 2 * groups, 3, groups=groups).double()
    products = bare(module, torch.randn(samples, 2 * groups, 5, 6, dtype=torch.float64))
    estimates = [sliced_grad_weight(products, kept, place) for place in range(windows(kept, samples))]
    torch.testing.assert_close(mean(estimates), products.grad_weight())


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(0, 4),
    st.integers(1, 2),
    st.sampled_from([1, 2, 4]),
    st.tuples(st.integers(5, 12), st.integers(5, 12)),
)
def test_grids(strides, kernel, stride, padding, dilation, groups, size):
    assume(min(size) + 2 * padding > dilation * (kernel - 1))
    module = nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups).double()
    products = bare(module, torch.randn(2, 4, *size, dtype=torch.float64))
    strides = clipped_strides(strides, products.grad_output)
    estimates = [grid_grad_weight(products, strides, offsets) for offsets in itertools.product(*map(range, strides))]
    assert len(estimates) == prod(strides)
    torch.testing.assert_close(mean(estimates), products.grad_weight())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_grid_in_float32(layout):
    module = nn.Conv2d(8, 16, 3, padding=1, stride=2).to(memory_format=layout)
    products = bare(module, torch.randn(4, 8, 14, 14).to(memory_format=layout))
    estimates = [grid_grad_weight(products, (2, 2), offsets) for offsets in itertools.product(range(2), range(2))]
    torch.testing.assert_close(mean(estimates), products.grad_weight(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("kept", [1, 2, 3])
def test_scaled_channel_blocks(groups, kept):
    module = nn.Conv2d(8, 8, 3, padding=1, groups=groups).double()
    products = bare(module, torch.randn(2, 8, 6, 6, dtype=torch.float64))
    unit = max(2, 8 // groups)
    units = 8 // unit
    kept = min(kept, units)
    found = [
        channel_products(products, window(place, kept, units), unit, units / kept, True)[0]
        for place in range(windows(kept, units))
    ]
    for estimate, dense in zip((mean(part) for part in zip(*found, strict=True)), products.dense(), strict=True):
        torch.testing.assert_close(estimate, dense)


@pytest.mark.parametrize("select", ["cyclic", "random"])
def test_layers_are_selected_as_often_as_their_fraction_says(select, model, attached):
    handle = attached(model, "layer", 0.3, select=select, layers={"overrides": {"down": 0.8}})
    estimator = handle.estimator
    counts = dict.fromkeys((layer.name for layer in estimator.layers), 0)
    for _ in range(2000):
        estimator.draw()
        for name in estimator._chosen:
            counts[name] += 1
    for name, count in counts.items():
        assert count / 2000 == pytest.approx(0.8 if name == "down" else 0.3, abs=0.05), name


def test_a_scaled_layer_is_divided_by_its_probability(model, batch, gradients, attached):
    model.eval()
    dense = gradients(model, batch)
    handle = attached(model, "layer", 0.5, scaled=True, select="random")
    sparse = gradients(model, batch)
    selected = [layer.name for layer in handle.estimator.layers if sparse[f"{layer.name}.weight"] is not None]
    assert 0 < len(selected) < len(handle.estimator.layers)
    for name in selected:
        torch.testing.assert_close(sparse[f"{name}.weight"], 2 * dense[f"{name}.weight"], rtol=1e-4, atol=1e-6)


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1e3) | st.just(float("inf"))), min_size=1, max_size=12),
    st.floats(0, 1),
)
def test_shares_follow_norms_and_keep_the_sum(pairs, exploration):
    fractions, norms = (list(values) for values in zip(*pairs, strict=True))
    found = shares(fractions, norms, exploration)
    assert all(exploration * p - 1e-9 <= share <= 1 for p, share in zip(fractions, found, strict=True))
    if all(norm > 1e-3 for norm in norms):
        assert sum(found) == pytest.approx(sum(fractions), rel=1e-6)


@given(st.integers(1, 40), st.integers(1, 40))
def test_windows_cover_every_element_equally_often(length, size):
    assume(length <= size)
    counts = torch.zeros(size)
    for place in range(windows(length, size)):
        for start, stop in window(place, length, size).index:
            counts[start:stop] += 1
    assert (counts == windows(length, size) * length / size).all()


@given(st.lists(st.integers(0, 9), unique=True, min_size=1), st.integers(1, 3))
def test_a_part_by_index_and_by_ranges_is_the_same(units, length):
    tensor = torch.randn(2, 30)
    by_index = Part(torch.tensor(units)).times(length, 30)
    by_range = Part(tuple((unit, unit + 1) for unit in units)).times(length, 30)
    assert torch.equal(by_index.take(tensor, 1), by_range.take(tensor, 1))
    values = torch.randn(2, len(units) * length)
    assert torch.equal(by_index.spread(values, 1, tensor), by_range.spread(values, 1, tensor))


@pytest.mark.parametrize(
    ("keep", "strides"), [(1, (1, 1)), (0.5, (1, 2)), (0.25, (2, 2)), (0.17, (2, 3)), (0.1, (3, 3))]
)
def test_strides_of_a_keep_fraction(keep, strides):
    assert grid_strides(keep, 2) == strides


@given(st.floats(0.001, 1), st.integers(0, 3))
def test_strides_in_every_number_of_dimensions(keep, dims):
    strides = grid_strides(keep, dims)
    assert len(strides) == max(dims, 1) and min(strides) >= 1
