import math

import pytest

from sbp_tune.units import axis_of, readable_energy, readable_metric


@pytest.mark.parametrize(
    ("kwh", "text"),
    [
        (1.2, "1.20 kWh"),
        (1.23e-5, "12.3 mWh"),
        (0.0123, "12.3 Wh"),
        (0.9996, "1.00 kWh"),
        (0.9994, "999 Wh"),
        (99.96, "100 kWh"),
        (12345.0, "12,300 kWh"),
        (2e-9, "0.00200 mWh"),
        (0.0, "0 Wh"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_readable_energy(kwh, text):
    assert readable_energy(kwh) == text


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("val_accuracy", 0.93214, "93.21 %"),
        ("kwh_measured_share", 0.5, "50 %"),
        ("kwh_gpu", 1e-3, "1.00 Wh"),
        ("co2_kg", 0.002, "2.00 g"),
        ("train_time_s", 90.0, "1.50 min"),
        ("tflop", 1.23456, "1.235"),
        ("tflop", math.nan, "–"),
    ],
)
def test_readable_metric(metric, value, text):
    assert readable_metric(metric, value) == text


@pytest.mark.parametrize(
    ("metric", "values", "title", "factor"),
    [
        ("kwh", [1e-5, 3e-5, math.nan], "Energy (mWh)", 1e6),
        ("kwh", [1e-5, 0.3], "Energy (Wh)", 1e3),
        ("kwh", [1.0], "Energy (kWh)", 1.0),
        ("kwh", [], "Energy (kWh)", 1.0),
        ("val_accuracy", [0.5], "Validation accuracy (%)", 100.0),
        ("kwh_measured_share", [0.5], "kwh_measured_share", 1.0),
        ("loss", [0.5], "loss", 1.0),
    ],
)
def test_axes_say_their_unit(metric, values, title, factor):
    assert axis_of(metric, values) == (title, pytest.approx(factor))
