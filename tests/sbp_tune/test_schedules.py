import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbp_tune.config import SparsityConfig
from sbp_tune.schedules import SCHEDULES, keep_fraction


def mask(**values):
    return SparsityConfig(estimator="mask", **values)


def test_linear_is_equation_6_with_its_floor():
    config = mask(schedule="linear", p0=0.5, k=0.1, p_min=0.15)
    assert [keep_fraction(config, t) for t in range(6)] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.15, 0.15])


def test_exponential_is_equation_7_with_the_floor_it_leaves_out():
    config = mask(schedule="exponential", p0=0.5, k=0.2, p_min=0.3)
    expected = [0.5, 0.5 * math.exp(-0.2), 0.5 * math.exp(-0.4), 0.3, 0.3]
    assert [keep_fraction(config, t) for t in range(5)] == pytest.approx(expected)


def test_constant_and_dense():
    assert keep_fraction(mask(p0=0.25), 99) == 0.25
    assert keep_fraction(SparsityConfig(estimator="dense", p0=0.25), 0) == 1.0


@given(
    st.sampled_from(sorted(SCHEDULES)), st.floats(0.01, 1), st.floats(0, 2), st.floats(0.01, 1), st.integers(0, 1000)
)
def test_every_schedule_stays_a_fraction(schedule, p0, k, p_min, epoch):
    assert 0 < keep_fraction(mask(schedule=schedule, p0=p0, k=k, p_min=p_min), epoch) <= 1
