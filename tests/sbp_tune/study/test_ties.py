import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbp_tune.study.ties import tied

energies = st.floats(1e-9, 1e3)
ratios = st.floats(0.01, 0.9)


@given(energies, ratios)
def test_a_step_is_at_most_its_ratio_below(energy, ratio):
    step = tied("kwh", energy, ratio)
    assert step <= energy * (1 + 1e-9) and energy < step * (1 + ratio) * (1 + 1e-9)


@given(energies, energies, ratios)
def test_the_order_is_kept(one, other, ratio):
    low, high = sorted((one, other))
    assert tied("co2_kg", low, ratio) <= tied("co2_kg", high, ratio)


@pytest.mark.parametrize(
    ("objective", "value", "ratio"), [("val_accuracy", 0.73, 0.1), ("kwh", 0.73, 0), ("kwh", 0, 0.1)]
)
def test_what_stays_as_it_is(objective, value, ratio):
    assert tied(objective, value, ratio) == value
