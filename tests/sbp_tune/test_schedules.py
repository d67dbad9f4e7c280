import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbp_tune.config import SparsityConfig
from sbp_tune.errors import InputError
from sbp_tune.schedules import SCHEDULES, keep_fraction


def mask(**values):
    return SparsityConfig.model_validate({"estimator": "mask", **values})


def curve(epochs, **values):
    return [keep_fraction(mask(**values), epoch, epochs) for epoch in range(epochs)]


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


@pytest.mark.parametrize("schedule", ["linear", "exponential", "cosine"])
def test_without_k_the_floor_is_reached_in_the_last_planned_epoch(schedule):
    found = curve(7, schedule=schedule, p0=0.8, p_min=0.1)
    assert found[0] == pytest.approx(0.8) and found[-1] == pytest.approx(0.1)
    assert found == sorted(found, reverse=True) and found[-2] > 0.1


def test_the_shapes():
    assert curve(5, schedule="increasing", p0=0.9, p_min=0.1) == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert curve(5, schedule="cosine", p0=1.0, p_min=0.2)[2] == pytest.approx(0.6)
    assert curve(5, schedule="step", p0=0.9, steps={1: 0.5, "3": 0.2}) == [0.9, 0.5, 0.5, 0.2, 0.2]
    assert curve(6, schedule="interleave", p0=0.2, dense_every=3) == [0.2, 0.2, 1.0, 0.2, 0.2, 1.0]


def test_dense_phases_frame_the_schedule():
    found = curve(10, schedule="linear", p0=0.5, p_min=0.1, warmup_dense=0.2, dense_tail=0.3)
    assert found == pytest.approx([1, 1, 0.5, 0.4, 0.3, 0.2, 0.1, 1, 1, 1])
    assert curve(4, p0=0.5, warmup_dense=1.0) == [1, 1, 1, 1]


def test_adaptive_follows_the_norm_that_was_kept():
    config = mask(schedule="adaptive", p0=0.5, norm_share=0.9, p_min=0.1)
    assert keep_fraction(config, 0) == 0.5
    assert keep_fraction(config, 1, 9, previous=0.5, norm_share=0.6) == pytest.approx(0.75)
    assert keep_fraction(config, 1, 9, previous=0.5, norm_share=0.99) < 0.5
    assert keep_fraction(config, 1, 9, previous=0.1, norm_share=1.0) == 0.1


def test_self_paced_estimators():
    variance = SparsityConfig(estimator="variance", tau=1.0, warmup_dense=0.5)
    assert [keep_fraction(variance, epoch, 4) for epoch in range(4)] == [1, 1, 0.5, 0.5]
    assert keep_fraction(SparsityConfig(estimator="budget", rho=0.3), 0) == 0.3


def test_what_needs_the_planned_epochs_says_so():
    for config in (mask(schedule="cosine"), mask(schedule="linear"), mask(dense_tail=0.5)):
        with pytest.raises(InputError, match="needs the planned epochs"):
            keep_fraction(config, 0)


fraction = st.floats(0.01, 1)


@given(
    st.sampled_from(sorted(SCHEDULES)),
    fraction,
    st.none() | st.floats(0, 2),
    fraction,
    st.integers(1, 300),
    st.floats(0, 1),
    st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    st.none() | fraction,
)
def test_every_schedule_stays_a_fraction(schedule, p0, k, p_min, epochs, at, dense, share):
    config = mask(schedule=schedule, p0=p0, k=k, p_min=p_min, steps={3: p0}, warmup_dense=dense[0], dense_tail=dense[1])
    assert 0 < keep_fraction(config, at * epochs, epochs, previous=p0, norm_share=share) <= 1
