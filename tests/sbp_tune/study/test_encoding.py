from __future__ import annotations

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbp_tune.study.encoding import Encoding
from sbp_tune.study.space_parser import parse_space

SPACE = parse_space(
    {
        "epochs": {"choice": [100, 25, 50]},
        "data": {"batch_size": {"int": [16, 128]}},
        "optimizer": {"lr": {"log_uniform": [0.01, 1.0]}, "nesterov": {"choice": [True, False]}},
        "sparsity": {
            "estimator": {"choice": ["mask", "dense", "grid"]},
            "schedule": {"choice": ["constant", "linear"]},
            "p0": {"uniform": [0.1, 1.0]},
            "k": {"log_uniform": [0.01, 0.1], "when": {"schedule": ["linear"]}},
            "state": {"choice": ["freeze"]},
        },
    },
    "demo.yaml",
)
DENSE = {"epochs": 25, "data.batch_size": 16, "optimizer.lr": 0.1, "optimizer.nesterov": True}
LINEAR = {**DENSE, "sparsity.estimator": "mask", "sparsity.schedule": "linear", "sparsity.p0": 0.1, "sparsity.k": 0.1}


@pytest.fixture(scope="module")
def encoding():
    return Encoding(SPACE)


def row(encoding, point):
    return dict(zip(encoding._keys, encoding.encoded([point])[0], strict=True))


def test_ranges_lie_between_0_and_1_and_choices_among_numbers_in_their_order(encoding):
    found = row(encoding, LINEAR)
    assert found["optimizer.lr"] == pytest.approx(0.5) and found["sparsity.k"] == pytest.approx(1.0)
    assert found["sparsity.p0"] == 0 and found["sparsity.schedule"] == 1
    steps = [row(encoding, {**LINEAR, "epochs": epochs})["epochs"] for epochs in (25, 50, 100)]
    assert np.diff(steps) == pytest.approx([1 / 3, 1 / 3]) and sum(steps) == pytest.approx(1.5)


def test_what_has_one_value_is_no_column(encoding):
    assert "sparsity.state" not in encoding._keys and "sparsity.state" in encoding.distributions


def test_what_means_nothing_has_one_number(encoding):
    constant = {**LINEAR, "sparsity.schedule": "constant"}
    assert row(encoding, constant)["sparsity.k"] == 0.5  # though the point has a k
    dense = row(encoding, {**LINEAR, "sparsity.estimator": "dense"})
    assert (dense["sparsity.schedule"], dense["sparsity.p0"], dense["sparsity.k"]) == (-1, 0.5, 0.5)


def test_a_baseline_with_an_option_outside_the_space_is_unlike_every_other(encoding):
    assert encoding.has(DENSE)  # its estimator is not in the space, and nothing else of sparsity is heard
    rows = encoding.encoded([DENSE, LINEAR])
    assert encoding.is_inside(rows).tolist() == [False, True]
    assert row(encoding, DENSE)["sparsity.estimator"] == -1


def test_a_point_that_lacks_a_number_cannot_be_encoded(encoding):
    assert not encoding.has({key: value for key, value in LINEAR.items() if key != "sparsity.k"})
    assert not encoding.has({key: value for key, value in DENSE.items() if key != "epochs"})
    assert encoding.has({key: value for key, value in LINEAR.items() if key != "optimizer.nesterov"})


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_a_proposed_point_comes_back_whole(encoding, seed):
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    SPACE.suggest(trial)
    point = {key: value for key, value in trial.params.items() if key != "sparsity.state"}
    assert encoding.has(point)
    rows = encoding.encoded([point])
    assert encoding.is_inside(rows).all()
    assert encoding.decoded(rows[0]) == pytest.approx(point)
    assert encoding.projected(torch.from_numpy(rows)).numpy() == pytest.approx(rows)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_a_projected_row_is_the_same_point_and_gradients_pass_only_for_what_means_something(encoding, seed):
    rows = encoding.numbers.sample_normalized_params(4, np.random.RandomState(seed))
    x = torch.from_numpy(rows).requires_grad_(True)
    found = encoding.projected(x)
    found.sum().backward()
    for before, after, gradient in zip(rows, found.detach().numpy(), x.grad.numpy(), strict=True):
        point = encoding.decoded(before)
        assert encoding.decoded(after) == point
        assert encoding.encoded([point])[0] == pytest.approx(after)
        assert [bool(g) for g in gradient] == [key in point for key in encoding._keys]
