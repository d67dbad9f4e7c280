"""Calibration: the fake T4s of this folder draw 70, 60, 50 and 10 W and update every 100 ms."""

from __future__ import annotations

import dataclasses
import io
import json
import statistics

import pytest
from rich.console import Console

from sbp_tune import calibrate
from sbp_tune.calibrate import (
    Calibration,
    Spread,
    amount_of,
    calibration,
    cv_interval,
    idle,
    repeats_needed,
    sentences,
    spread,
    update_period,
)
from sbp_tune.config import EnergyConfig
from sbp_tune.energy.counters.machine import MachineCounters

# Runs per arm that find 2, 5 and 10 % with 80 % power at alpha 0.05, from the table of the energy notes.
TABLE = {
    0.005: (3, 2, 2),
    0.01: (6, 3, 2),
    0.02: (17, 4, 3),
    0.03: (37, 7, 3),
    0.05: (100, 17, 6),
    0.08: (253, 42, 12),
    0.1: (394, 64, 17),
}


@pytest.mark.parametrize(("cv", "expected"), TABLE.items())
def test_repeats_needed(cv, expected):
    assert tuple(repeats_needed(cv, difference) for difference in (0.02, 0.05, 0.1)) == expected


def test_repeats_needed_of_any_spread():
    found = [repeats_needed(cv) for cv in (0.0, 1e-6, 0.0024, 0.0026, 0.004, 0.25, 1.0, 8.0)]
    assert found == sorted(found) and found[:3] == [2, 2, 2]
    assert found[-2] == pytest.approx(2 * (1.96 + 0.8416) ** 2 * (1 / 0.05) ** 2, rel=0.01)  # normal approximation


def test_the_interval_of_a_spread_narrows_with_the_runs():
    few, many = cv_interval(0.02, 4), cv_interval(0.02, 100)
    assert few == pytest.approx((0.02 * (3 / 9.3484) ** 0.5, 0.02 * (3 / 0.21580) ** 0.5), rel=1e-4)  # chi-square table
    assert few[0] < many[0] < 0.02 < many[1] < few[1]


@pytest.fixture
def polled(clock):
    """A clock that moves on by 1 ms whenever it is looked at."""

    def look():
        clock.advance(0.001)
        return clock()

    return look


@pytest.mark.parametrize("period", [0.02, 0.1])
def test_the_update_period_of_a_counter(period, library, nvml, uuids, polled):
    library.update_s = period
    assert update_period(lambda: nvml.total_energy_j(uuids[0]), 3, polled) == pytest.approx(period, abs=0.0015)


def test_a_reading_that_does_not_move_has_no_period(library, nvml, uuids, polled):
    library.gpus[0].stuck = True
    assert update_period(lambda: nvml.total_energy_j(uuids[0]), 3, polled) is None


@pytest.fixture
def counters(nvml, clock, tmp_path):
    folders = {name: tmp_path / name for name in ("powercap", "hwmon", "drm")}
    return MachineCounters(nvml=nvml, clock=clock, **folders)


def test_idle_power_of_what_is_measured_and_of_nothing_else(counters, clock, uuids):
    devices, _ = idle(counters, 30, sleep=clock.advance)
    found = {device.name: device for device in devices}
    assert [found[uuid].idle_w for uuid in uuids] == [pytest.approx(watts) for watts in (70, 60, 50, 10)]
    assert [(found[name].source, found[name].idle_w) for name in ("cpu", "dram")] == [("model", None)] * 2


def test_a_gpu_that_is_lost_meanwhile_has_no_idle_power(counters, library, clock):
    library.gpus[1].lost = True
    devices, _ = idle(counters, 5, sleep=clock.advance)
    assert devices[1].idle_w is None and devices[0].idle_w == pytest.approx(70)


def test_the_amount_of_work_is_what_takes_so_long(clock):
    amount = amount_of(lambda amount: clock.advance(0.01 * amount), 2, clock)
    assert amount == pytest.approx(200, rel=0.1)


def test_the_spread_is_of_the_measured_energy_first(library, clock, nvml, uuids, meter, monkeypatch):
    monkeypatch.setattr(calibrate, "EnergyMeter", meter)
    watts = iter((70.0, 66.0, 68.0))

    def work():
        library.gpus[0].since_load_mj += library.gpus[0].power_w * (clock() - library.loaded) * 1000
        library.loaded, library.gpus[0].power_w = clock(), next(watts)
        clock.advance(10)

    first, *others = spread(work, 3, [uuids[0]])
    assert first.quantity == "GPU energy (J)" and first.values == pytest.approx((700, 660, 680))
    assert first.cv == pytest.approx(statistics.stdev((70, 66, 68)) / 68)
    assert [one.quantity for one in others] == ["Modelled energy (J)", "CPU time (s)", "Wall time (s)"]
    assert others[-1].cv == pytest.approx(0)


def test_the_spread_of_a_run_without_gpu_is_of_its_processors_counter(clock, meter, rapl, monkeypatch):
    rapl.zone("intel-rapl:0", "package-0")
    monkeypatch.setattr(calibrate, "EnergyMeter", lambda gpus: meter(gpus=gpus, powercap=rapl.root))
    watts = iter((100.0, 110.0))

    def work():
        clock.advance(10)
        rapl.use("intel-rapl:0", 10 * next(watts))

    first, second, *_ = spread(work, 2)
    assert first.quantity == "CPU energy (J)" and first.values == pytest.approx((1000, 1100))
    assert second.quantity == "Modelled energy (J)" and second.values == pytest.approx((30, 30))  # the memory


def test_the_idle_power_of_gpus_is_what_a_study_file_wants(counters, clock):
    devices, _ = idle(counters, 30, sleep=clock.advance)
    runs = Spread("GPU energy (J)", (1.0, 1.0), 0.0)
    found = Calibration(30.0, tuple(devices), 0.1, "Tesla T4", (runs,), 2, (0.0, 0.0), (2, 2))
    [line] = [line for line in sentences(found) if "share a GPU" in line]
    assert "`energy: {gpu_idle_w: 47.5}`" in line
    assert EnergyConfig(gpu_idle_w=47.5).gpu_idle_w == 47.5
    without = dataclasses.replace(found, devices=tuple(device for device in devices if device.name in ("cpu", "dram")))
    assert not any("share a GPU" in line for line in sentences(without))


def test_a_short_calibration_of_this_machine(tmp_path):
    found = calibration(seconds=0.5, repeats=2)
    assert {device.name for device in found.devices} >= {"cpu", "dram"}
    names = [one.quantity for one in found.spreads]
    assert names[-2:] == ["CPU time (s)", "Wall time (s)"] and len(found.spreads[0].values) == 2
    assert found.repeats_range[0] <= found.repeats <= found.repeats_range[1] and found.repeats >= 2
    text = io.StringIO()
    calibrate.print_calibration(found, Console(file=text, width=200))
    assert f"run each arm {found.repeats} times" in text.getvalue()
    assert ("modelled" in text.getvalue()) == any(device.source == "model" for device in found.devices)
    calibrate.write_calibration(found, tmp_path / "calibration.json")
    assert json.loads((tmp_path / "calibration.json").read_text())["repeats"] == found.repeats
