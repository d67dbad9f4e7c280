from __future__ import annotations

import pytest

from sbp_tune.energy import Component, Reading
from sbp_tune.energy.integral import Integral
from sbp_tune.energy.models import cpu_joules, ram_joules

CPU, RAM = Component(0.2, "model", 0.5), Component(0.1, "model", 0.5)


def test_measured_share_and_power_are_those_of_the_sum():
    reading = Reading({"gpu": Component(0.7, "counter", 0.1), "cpu": CPU, "ram": RAM}, 3600.0, 10.0, None)
    assert reading.kwh == pytest.approx(1.0)
    assert reading.measured_share == pytest.approx(0.7)
    assert reading.mean_power_w == pytest.approx(1000.0)  # 1 kWh in an hour
    assert (reading.kwh_gpu, reading.kwh_cpu, reading.kwh_ram) == (0.7, 0.2, 0.1)


def test_a_component_without_source_is_never_zero():
    reading = Reading({"gpu": Component(None, "none", None), "cpu": CPU, "ram": RAM}, 1.0, 1.0, None)
    assert reading.kwh_gpu is None
    assert reading.kwh == pytest.approx(0.3)
    assert reading.measured_share == 0


def test_no_time_is_no_power():
    assert Reading({}, 0.0, 0.0, None).mean_power_w == 0
    assert Reading({}, 0.0, 0.0, None).measured_share == 0


def test_models_by_hand():
    assert cpu_joules(seconds=100, cpu_seconds=50, cores=2, idle_w=0.75, busy_w=6) == 150 + 300
    assert ram_joules(gb_seconds=80, w_per_gb=0.375) == 30


def test_an_integral_holds_each_sample_and_never_falls():
    watts = Integral(10.0, 100.0)
    assert watts.until(10.5) == 50
    watts.add(11.0, 0.0)
    assert watts.until(11.0) == watts.until(20.0) == 100
