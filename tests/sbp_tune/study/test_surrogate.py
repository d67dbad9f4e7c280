from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

from sbp_tune.study.surrogate import Surrogate, log_normal_improvement, normal_improvement

mpmath.mp.dps = 60
FLAT = np.array([False, False])


@pytest.mark.parametrize("z", [-5000.0, -26.0, -25.0, -24.0, -6.0, 0.0, 4.0, 300.0])
def test_the_improvement_of_a_normal_value_holds_far_out(z):
    found = normal_improvement(torch.tensor([2.0 + 0.5 * z], dtype=torch.float64), torch.tensor(0.5), 2.0)
    exact = mpmath.log(0.5 * (mpmath.npdf(z) + mpmath.mpf(z) * mpmath.ncdf(z)))
    assert float(found) == pytest.approx(float(exact), rel=1e-6)


@pytest.mark.parametrize("deviation", [1e-3, 0.1])
@pytest.mark.parametrize("z", [-300.0, -30.0, -3.0, 0.0, 3.0, 30.0, 2000.0])
def test_the_improvement_of_a_cost_holds_far_out(z, deviation):
    mean, edge = -1.0, mpmath.exp(-1 + mpmath.mpf(z) * deviation)
    values = torch.tensor([mean], dtype=torch.float64), torch.tensor([deviation], dtype=torch.float64)
    found = log_normal_improvement(*values, -torch.tensor(float(edge), dtype=torch.float64))
    below = mpmath.exp(mean + deviation**2 / 2) * mpmath.ncdf(z - deviation)
    assert float(found) == pytest.approx(float(mpmath.log(edge * mpmath.ncdf(z) - below)), rel=1e-5)


def test_a_product_is_modelled_by_its_logarithm_and_a_sum_is_not():
    points = np.random.default_rng(0).random((20, 2))
    product = np.exp(4 * points[:, 0] + 3 * np.sin(3 * points[:, 1]))
    line = 1 + points.sum(axis=1)
    assert Surrogate(points, -product, FLAT).is_log and not Surrogate(points, -line, FLAT).is_log
    assert not Surrogate(points, product, FLAT).is_log  # to be maximised
    assert not Surrogate(points, -product + 1.5, FLAT).is_log  # not all are positive
    assert not Surrogate(points, -np.append(product[:-1], 1e-9), FLAT).is_log  # its logarithm has an outlier
    for values in (-product, -line):
        model = Surrogate(points, values, FLAT)
        assert model.expected(points) == pytest.approx(values, rel=0.1)
        assert Surrogate(points, values, FLAT, model).expected(points) == pytest.approx(values, rel=0.1)
