from __future__ import annotations

import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sbp_tune.energy import EnergyMeter
from sbp_tune.energy.nvml import Nvml
from sbp_tune.errors import SbpTuneError

CORES = os.cpu_count()


def joules(kwh: float) -> float:
    return kwh * 3_600_000


def test_a_kilowatt_hour_is_3_6_megajoules(meter, clock, library, uuids):
    library.gpus[0].power_w = library.gpus[0].limit_w = 1000
    with meter(gpus=[uuids[0]], cpus=CORES, country="IRL", pue=1.5) as energy:
        clock.advance(3600)
    reading = energy.read()
    assert reading.kwh_gpu == pytest.approx(1.0)
    assert reading.kwh_cpu == pytest.approx(0.016)  # 10 W idle + one core at 6 W
    assert reading.kwh_ram == pytest.approx(0.003)  # 8 GB at 0.375 W
    assert reading.mean_power_w == pytest.approx(1019)
    assert reading.measured_share == pytest.approx(1 / 1.019)
    assert reading.co2_kg == pytest.approx(1.019 * 1.5 * 0.290805)
    assert reading.components["gpu"].source == "counter"
    assert reading.components["cpu"].source == reading.components["ram"].source == "model"


@pytest.mark.parametrize(("index", "watts"), [(0, 70), (1, 60), (2, 50), (3, 10)])
def test_each_gpu_is_itself_in_any_order_of_the_driver(index, watts, meter, clock, library, uuids):
    library.gpus = [library.gpus[i] for i in (3, 1, 0, 2)]
    with meter(gpus=[uuids[index]], nvml=Nvml(library)) as energy:
        clock.advance(100)
    assert joules(energy.read().kwh_gpu) == pytest.approx(100 * watts)


def test_several_gpus_add_up_and_a_repeated_one_counts_once(meter, clock, uuids):
    with meter(gpus=[*uuids, uuids[0].removeprefix("GPU-")]) as energy:
        clock.advance(100)
    assert joules(energy.read().kwh_gpu) == pytest.approx(100 * 190)


def test_idle_is_billed_by_the_reserved_cores(meter, clock):
    with meter(cpus=CORES / 4, cpu_busy_w=0) as energy:
        clock.advance(100)
    assert joules(energy.read().kwh_cpu) == pytest.approx(250)


def test_idle_is_billed_only_once(meter, clock):
    with meter(cpus=CORES * 10, cpu_busy_w=0) as energy:
        clock.advance(100)
    assert joules(energy.read().kwh_cpu) == pytest.approx(1000)


def test_the_quantised_counter_errs_by_at_most_one_update(meter, clock, uuids):
    with meter(gpus=[uuids[0]]) as energy:
        for _ in range(100):
            clock.advance(0.0373)
            reading = energy.read()
            assert abs(joules(reading.kwh_gpu) - 70 * reading.seconds) <= 7.001
    assert reading.components["gpu"].uncertainty == pytest.approx(0.1 + 0.1 / 3.73)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(st.integers(0, 3000), max_size=8))
def test_reading_changes_nothing(meter, clock, uuids, tenths):
    end = 4000
    with meter(gpus=[uuids[1]]) as energy:
        start, last = clock.now, energy.read()
        for moment in sorted(tenths):
            clock.now = start + moment / 10
            reading = energy.read()
            assert reading.kwh >= last.kwh
            last = reading
        clock.now = start + end
    assert joules(energy.read().kwh_gpu) == pytest.approx(60 * end, abs=6.001)
    assert joules(energy.read().kwh_ram) == pytest.approx(3 * end)
    assert energy.cpu_seconds == pytest.approx(end)


def test_power_is_integrated_where_there_is_no_counter(meter, clock, library, uuids):
    library.gpus[2].unsupported = {"energy"}
    with meter(gpus=[uuids[2]]) as energy:
        clock.advance(1000)
    gpu = energy.components["gpu"]
    assert (gpu.source, joules(gpu.kwh)) == ("integrated", pytest.approx(50_000))
    assert gpu.uncertainty > 0.1


def test_integrated_power_is_sampled_in_the_background(library, uuids):
    library.clock = time.monotonic
    library.gpus[0].unsupported = {"energy"}
    library.gpus[0].limit_w = 10_000
    with EnergyMeter(gpus=[uuids[0]], nvml=Nvml(library)) as energy:
        library.gpus[0].power_w = 7000  # only a later sample can know
        while energy.read().mean_power_w < 1000:
            time.sleep(0.05)
    assert energy.components["gpu"].source == "integrated"


@pytest.mark.parametrize(
    "break_it",
    [
        lambda library: library.gpus[0].unsupported.update({"energy", "power"}),
        lambda library: setattr(library.gpus[0], "mig", True),
    ],
)
def test_an_unreadable_gpu_is_none(break_it, meter, clock, library, uuids):
    break_it(library)
    with meter(gpus=[uuids[0], uuids[1]]) as energy:
        clock.advance(100)
    reading = energy.read()
    assert reading.components["gpu"].source == "none"
    assert reading.components["gpu"].kwh is None
    assert reading.kwh == pytest.approx(reading.kwh_cpu + reading.kwh_ram)


def test_a_mig_instance_is_none(meter, clock, library):
    instance = "4c9b8a7d-1e2f-5a3b-8c4d-9e0f1a2b3c4d"
    with meter(gpus=[f"MIG-{instance}"]) as energy:
        clock.advance(100)
    assert energy.components["gpu"].source == "none"
    library.gpus[0].mig = True
    with meter(gpus=[instance]) as energy:  # as CUDA may give it
        clock.advance(100)
    assert energy.components["gpu"].source == "none"


def test_a_gpu_without_nvml_is_none(meter, clock, library, uuids):
    library.gpus = []
    with meter(gpus=[uuids[0]], nvml=Nvml(library)) as energy:
        clock.advance(100)
    assert energy.components["gpu"].source == "none"


def test_the_second_papers_power_is_rejected(meter, clock, library, uuids):
    library.gpus[0].limit_w = 50
    library.gpus[0].power_w = 107_500 / 104  # DenseNet, 100 epochs of 1.04 s: 1034 W
    with pytest.raises(SbpTuneError, match=r"mean power 103\d W .* above its limit of 50 W"), meter(gpus=[uuids[0]]):
        clock.advance(104)


def test_a_gpu_at_its_limit_is_accepted_from_the_first_update_on(meter, clock, uuids):
    clock.advance(0.09)  # the next update of the counter is 0.01 s away
    with meter(gpus=[uuids[0]]) as energy:
        for _ in range(50):
            clock.advance(0.02)
            energy.read()


def test_a_counter_that_stands_still_is_an_error(meter, clock, library, uuids):
    library.gpus[0].stuck = True
    energy = meter(gpus=[uuids[0]])
    energy.start()
    clock.advance(0.5)
    assert energy.read().kwh_gpu == 0  # not yet a second
    clock.advance(0.5)
    with pytest.raises(SbpTuneError, match=f"{uuids[0]}: energy counter did not move"):
        energy.read()
    library.gpus[0].stuck = False
    with pytest.raises(SbpTuneError, match="did not move"):  # a spoilt measurement stays spoilt
        energy.stop()
    with pytest.raises(SbpTuneError, match="did not move"):
        print(energy.kwh)


def test_a_counter_that_stops_later_is_an_error(meter, clock, library, uuids):
    with pytest.raises(SbpTuneError, match="did not move"), meter(gpus=[uuids[0]]) as energy:
        clock.advance(10)
        energy.read()
        library.gpus[0].since_load_mj, library.gpus[0].stuck = 123_456_789 + 700_000, True
        clock.advance(10)


def test_a_counter_that_goes_backwards_is_an_error(meter, clock, library, uuids):
    with pytest.raises(SbpTuneError, match=f"{uuids[3]}: energy counter went backwards"), meter(gpus=uuids) as energy:
        clock.advance(10)
        energy.read()
        library.gpus[3].since_load_mj = 0
        clock.advance(10)


def test_an_unknown_gpu_is_an_error_at_the_start(meter):
    with pytest.raises(SbpTuneError, match="not on this machine"):
        meter(gpus=["GPU-00000000-0000-0000-0000-000000000000"]).start()


def test_a_failed_background_sample_is_raised_by_the_next_reading(library, uuids):
    library.clock = time.monotonic
    library.gpus[0].unsupported = {"energy"}
    with pytest.raises(SbpTuneError, match="GPU is lost"), EnergyMeter(gpus=uuids[:1], nvml=Nvml(library)) as energy:
        library.gpus[0].lost = True
        while True:
            energy.read()
            time.sleep(0.05)


def test_utilisation_is_the_mean_of_the_gpus_over_time(meter, clock, library, uuids):
    library.gpus[1].busy_percent = 40
    with meter(gpus=uuids[:2]) as energy:
        clock.advance(50)
        busy = energy.read().gpu_busy_seconds
    assert busy == pytest.approx(50 * 0.6)


def test_utilisation_that_cannot_be_read_is_not_zero(meter, clock, library, uuids):
    library.gpus[1].unsupported.add("utilization")
    with meter(gpus=uuids[:2]) as energy:
        clock.advance(50)
        assert energy.read().gpu_busy_seconds is None
    with meter() as energy:
        assert energy.read().gpu_busy_seconds is None
