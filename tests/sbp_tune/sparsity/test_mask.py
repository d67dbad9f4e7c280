import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from sbp_tune.config import SparsityConfig
from sbp_tune.sparsity import sparsify
from sbp_tune.sparsity.estimators.mask import kept_count, largest


def masked(model, batch, keep, **more):
    handle = sparsify(model, SparsityConfig(estimator="mask", p0=keep, **more))
    handle.start_epoch(0, 1)
    model.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
    handle.before_step(torch.optim.SGD(model.parameters(), lr=0.1))
    handle.remove()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("keep", [0.05, 0.1, 0.5])
def test_keeps_the_largest_of_each_layer_and_all_else_dense(model, batch, gradients, keep, channels_last):
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    dense = gradients(model, batch)
    for name, gradient in masked(model, batch, keep).items():
        reference = dense[name]
        if reference.dim() < 2:  # biases and normalisation
            torch.testing.assert_close(gradient, reference)
            continue
        count = math.ceil(Fraction(str(keep)) * reference.numel())
        chosen = reference.abs().flatten().sort(descending=True, stable=True).indices[:count]
        expected = torch.zeros(reference.numel()).index_copy(0, chosen, reference.flatten()[chosen])
        torch.testing.assert_close(gradient.flatten(), expected)


@given(st.integers(1, 10_000), st.integers(1, 1000))
def test_kept_count_is_the_exact_ceiling(size, thousandths):
    assert kept_count(thousandths / 1000, size) == math.ceil(Fraction(thousandths, 1000) * size)


@given(
    arrays("float32", st.integers(1, 60), elements=st.sampled_from([0.0, 0.0, 1.0, 2.0, 2.0, 3.5])),
    st.floats(0.001, 1.0),
)
def test_exactly_so_many_also_with_ties(values, keep):
    scores = torch.from_numpy(values)
    count = kept_count(keep, len(values))
    chosen = largest(scores, count)
    assert int(chosen.sum()) == count
    assert not (~chosen).any() or scores[chosen].min() >= scores[~chosen].max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_dtype_and_shape(dtype):
    scores = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)).abs().to(dtype)
    chosen = largest(scores, 11)
    assert chosen.shape == scores.shape and int(chosen.sum()) == 11


def test_nan_and_inf_stay_visible():
    """A gradient scaler must still find what it has to skip."""
    scores = torch.tensor([1.0, math.nan, 5.0, math.inf, 0.5])
    assert largest(scores, 2)[[1, 3]].all()
    assert largest(torch.full((4,), math.nan), 1).all()


@pytest.mark.parametrize("sliced", [False, True])
def test_a_mask_lies_in_memory_as_its_scores_do(sliced):
    """A multiplication of gradients by a mask of another layout is several times slower."""
    scores = torch.rand(8, 6, 3, 3).to(memory_format=torch.channels_last)
    scores = scores[::2] if sliced else scores
    chosen = largest(scores, 17)
    assert torch.equal(chosen, largest(scores.contiguous(), 17)) and int(chosen.sum()) == 17
    assert chosen.is_contiguous(memory_format=torch.channels_last)


def test_a_layer_without_gradient_is_passed_over(model, batch):
    model.shared.requires_grad_(False)
    assert masked(model, batch, 0.1)["shared.weight"] is None


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("least", [0.0, 0.1])
def test_global_scope_ranks_all_layers_together(model, batch, gradients, channels_last, least):
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    dense = {name: gradient for name, gradient in gradients(model, batch).items() if gradient.dim() > 1}
    sparse = masked(model, batch, 0.25, scope="global", min_per_layer=least)
    scores = {name: gradient.abs().clone() for name, gradient in dense.items()}
    if least:
        for score in scores.values():
            count = kept_count(least, score.numel())
            score[score >= score.flatten().sort(descending=True).values[count - 1]] = math.inf
    everything = torch.cat([score.flatten() for score in scores.values()])
    threshold = everything.sort(descending=True).values[kept_count(0.25, everything.numel()) - 1]
    for name, gradient in dense.items():
        torch.testing.assert_close(sparse[name], torch.where(scores[name] >= threshold, gradient, 0.0), msg=name)


@pytest.mark.parametrize(
    ("score", "of"),
    [("grad_squared", lambda w, g: g.square()), ("abs_weight_grad", lambda w, g: (w * g).abs())],
)
def test_other_scores(score, of, model, batch, gradients):
    dense, weight = gradients(model, batch)["down.weight"], model.down.weight.detach().clone()
    kept = masked(model, batch, 0.1, score=score)["down.weight"] != 0
    assert torch.equal(kept, largest(of(weight, dense), kept_count(0.1, dense.numel())))


@pytest.mark.parametrize("every", [3, "epoch"])
def test_a_ranking_serves_several_steps_and_is_of_their_mean(every, model):
    handle = sparsify(model, SparsityConfig(estimator="mask", p0=0.1, reselect_every=every))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    weight, seen, masks = model.down.weight, [], []
    for epoch in range(2):
        handle.start_epoch(epoch, 2)
        for _ in range(4):
            seen.append(torch.randn(weight.shape, generator=generator))
            weight.grad = seen[-1].clone()
            handle.before_step(optimizer)
            masks.append(weight.grad != 0)
    ranked = {3: [0, 3, 6], "epoch": [0, 4]}[every]
    for step, mask in enumerate(masks):
        at = max(place for place in ranked if place <= step)
        since = max((place for place in ranked if place < at), default=-1) + 1
        mean = torch.stack(seen[since : at + 1]).abs().mean(0)
        assert torch.equal(mask, largest(mean, int(mask.sum()))), step
