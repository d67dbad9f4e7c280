import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbp_tune.study.gain import Gain

MODES = ["max", "min"]


def gain_of(*trials, first=(0.8, 2.0)):
    gain = Gain(MODES, first)
    for values, kwh in trials:
        gain.add(values, kwh)
    return gain


def test_hypervolume_in_units_of_the_first_trial():
    """The reference is (0, 4 kWh): twice the first trial's cost."""
    gain = gain_of(((0.8, 2.0), 2.0), ((0.6, 1.0), 1.0), (None, 3.0), ((0.9, 4.0), 4.0))
    first = 0.8 * (1 - 2 / 4)
    second = first + 0.6 * (2 - 1) / 4
    assert gain._volumes == pytest.approx([0, first, second, second, second])  # 4 kWh is the reference itself
    assert gain.per_kwh(3) == pytest.approx((second - first) / 8)
    assert gain.per_kwh(2) == 0
    assert gain.per_kwh(4) is None  # all are of the first window: nothing to gain on


def test_no_gain_is_told_of_trials_that_used_nothing():
    assert gain_of(((0.8, 2.0), 2.0), (None, 0.0)).per_kwh(1) is None


trials = st.lists(st.tuples(st.none() | st.tuples(st.floats(0, 1), st.floats(0.01, 9)), st.floats(0.1, 9)), max_size=12)


@given(trials, st.integers(1, 5))
def test_gains_are_never_negative_and_do_not_depend_on_units(rows, window):
    gain = gain_of(*rows)
    gained = gain.per_kwh(window)
    assert (gained is None) == (len(rows) <= window)
    assert gained is None or 0 <= gained <= 1 / 0.1
    assert 0 <= gain._volumes[-1] <= 1
    in_wh = gain_of(*((v and (v[0], 1000 * v[1]), kwh) for v, kwh in rows), first=(0.8, 2000.0))
    assert in_wh._volumes == pytest.approx(gain._volumes)


def test_the_front_alone_makes_the_hypervolume():
    rows = [((0.1 * i, 0.3 * i), 1.0) for i in range(1, 10)]
    assert gain_of(*rows)._volumes[-1] == pytest.approx(gain_of(*reversed(rows))._volumes[-1])
