"""The estimators that pace themselves: `variance` by measured variances, `budget` by measured times."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sbp_tune.sparsity import sparsify
from sbp_tune.sparsity.estimators.budget import Cost, best_set
from sbp_tune.sparsity.estimators.variance import grid_variance, own_variance
from sbp_tune.sparsity.operators import operator_of
from sbp_tune.sparsity.products import Products

SECONDS = st.integers(1, 20).map(float)
COSTS = st.lists(st.builds(Cost, SECONDS, SECONDS, SECONDS, st.integers(1, 50).map(float)), min_size=1, max_size=7)


def time_of(costs, chosen, reach):
    if not chosen:
        return 0.0
    flow = sum(cost.grad_input for cost in costs[min([*(place + 1 for place in chosen), reach]) :])
    return flow + sum(costs[place].grad_weight + costs[place].optimizer for place in chosen)


@settings(deadline=None)
@given(COSTS, st.floats(0.05, 0.99), st.integers(0, 7))
def test_the_budget_is_kept_and_no_set_matters_more(costs, rho, reach):
    reach = min(reach, len(costs))
    chosen = best_set(costs, rho, reach)
    total = sum(sum(cost[:3]) for cost in costs)
    assert time_of(costs, chosen, reach) <= rho * total + 1e-6
    subsets = itertools.chain.from_iterable(itertools.combinations(range(len(costs)), n) for n in range(len(costs) + 1))
    # costs are rounded up to thousandths of the whole: what fits with that much to spare is a candidate
    spare = (len(costs) + 1) * total / 1000
    fitting = [subset for subset in subsets if time_of(costs, subset, reach) <= rho * total - spare]
    best = max((sum(costs[place].importance for place in subset) for subset in fitting), default=0.0)
    assert sum(costs[place].importance for place in chosen) >= best


def test_budget_trains_what_matters_within_its_time(model, batch, config_of, train):
    handle = sparsify(model, config_of("budget", 0.5))
    estimator = handle.estimator
    handle.start_epoch(0, 2)
    train(model, handle, batch, epochs=[0], steps=1)
    estimator._times = {layer.name: (1.0, 1.0) for layer in estimator.layers}
    estimator._optimizer_s = 0.0
    estimator._importance.load_state_dict(
        {layer.name: torch.tensor([9.0 if layer.name == "down" else 1.0]) for layer in estimator.layers}
    )
    estimator._watching, estimator._undecided = False, True
    model.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
    assert model.down.weight.grad is not None and model.stem.weight.grad is None
    learning = [layer for layer in estimator.layers if layer.weight.grad is not None]
    lowest = min(estimator.layers.index(layer) for layer in learning)
    assert len(learning) + len(estimator.layers[lowest + 1 :]) <= len(estimator.layers)  # half of two products each


def bare(x, grad_output):
    module = nn.Conv2d(x.shape[1], grad_output.shape[1], 3, padding=1)
    return Products(operator_of(module), grad_output, x, module.weight.detach(), True, True, lambda *_: None)


def test_own_variance_is_that_of_a_sum_of_independent_samples():
    """Over many batches of independent samples, V estimates the variance of the batch's gradient."""
    generator = torch.Generator().manual_seed(0)
    gradients, estimates = [], []
    for _ in range(300):
        products = bare(torch.randn(8, 2, 4, 4, generator=generator), torch.randn(8, 2, 4, 4, generator=generator))
        gradients.append(products.grad_weight())
        estimates.append(own_variance(products, gradients[-1]))
    measured = torch.stack(gradients).var(0).sum().item()
    assert sum(estimates) / len(estimates) == pytest.approx(measured, rel=0.1)


def test_a_grid_adds_little_on_smooth_signals_and_much_on_noise():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8, 2, 16, 16, generator=generator), torch.randn(8, 2, 16, 16, generator=generator)
    smooth = [nn.functional.interpolate(part[..., :4, :4], size=(16, 16), mode="bilinear") for part in noise]
    ratios = []
    for x, grad_output in (smooth, noise):
        products = bare(x, grad_output)
        gradient = products.grad_weight()
        ratios.append(grid_variance(products, gradient, (2, 2)) / own_variance(products, gradient))
    assert ratios[0] < 0.3 < 1 < ratios[1]


def test_variance_probes_layers_that_are_dense_for_now(model, batch, config_of, train):
    handle = sparsify(model, config_of("variance", 0.5, probe_every=2, auto_dense=True))
    train(model, handle, batch, epochs=[0], steps=2)
    handle.auto_dense.times = dict.fromkeys(handle.auto_dense.times, (1.0, 2.0))
    handle.estimator._strides.clear()
    train(model, handle, batch, epochs=[1], steps=1)
    assert len(handle.estimator._strides) == len(handle.estimator.layers)


def test_variance_falls_back_on_slices_of_the_batch(model, batch, attached):
    handle = attached(model, "variance", 0.5)
    model(batch[0]).sum().backward()
    chosen = handle.estimator._strides
    assert set(chosen) == {layer.name for layer in handle.estimator.layers} and chosen["shared"] == ()
    handle.remove()
