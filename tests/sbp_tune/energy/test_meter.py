from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sbp_tune.config import EnergyConfig
from sbp_tune.energy import EnergyMeter
from sbp_tune.energy import meter as meter_module
from sbp_tune.energy.nvml import Nvml
from sbp_tune.errors import InputError, SbpTuneError

CORES = os.cpu_count()


class FakeTree:
    """One core busy, 8 GB resident, by the fake clock."""

    def __init__(self, clock) -> None:
        self.clock = clock

    def cpu_seconds(self) -> float:
        return self.clock()

    def memory_gb(self) -> float:
        return 8.0


@pytest.fixture
def meter(clock, nvml, monkeypatch):
    monkeypatch.setattr(meter_module, "ProcessTree", lambda pid: FakeTree(clock))
    return lambda **options: EnergyMeter(**{"nvml": nvml, "clock": clock} | options)


def joules(kwh: float) -> float:
    return kwh * 3_600_000


# --- a CPU run on this machine ---------------------------------------------------------------------------------------


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_one_busy_process_costs_what_the_model_says():
    with EnergyMeter(country="IRL", cpus=CORES / 2, cpu_idle_w=20, cpu_busy_w=7, ram_w_per_gb=0.4) as energy:
        burn(0.5)
    reading = energy.read()
    assert 0.45 < reading.cpu_seconds < 1.5
    assert joules(reading.kwh_cpu) == pytest.approx(20 * 0.5 * reading.seconds + 7 * reading.cpu_seconds)
    assert reading.kwh == reading.kwh_cpu + reading.kwh_ram
    assert reading.co2_kg == pytest.approx(reading.kwh * 0.290805)
    assert 0 < joules(reading.kwh_ram) < 0.4 * 10 * reading.seconds


def test_a_cpu_run_has_no_gpu_component_and_never_opens_nvml(monkeypatch):
    def opened() -> Nvml:
        raise AssertionError("NVML was opened")

    monkeypatch.setattr(meter_module, "system_nvml", opened)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with EnergyMeter() as energy:
        pass
    assert set(energy.components) == {"cpu", "ram"}
    assert energy.read().kwh_gpu is None
    assert energy.read().measured_share == 0
    assert energy.co2_kg is None


def test_no_network(monkeypatch):
    def no_network(*args: object, **options: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "socket", no_network)
    with EnergyMeter(country="IRL") as energy:
        pass
    assert energy.co2_kg >= 0


def test_a_child_of_the_run_is_billed():
    with EnergyMeter() as energy:
        code = "import time\nwhile time.process_time() < 0.3: pass"
        subprocess.run([sys.executable, "-S", "-E", "-c", code], check=True)
    assert energy.cpu_seconds > 0.25


def test_another_process_can_be_metered():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        with EnergyMeter(pid=child.pid) as energy:
            burn(0.5)
        child.communicate(b"\n")
    assert energy.cpu_seconds < 0.4


def test_importing_the_meter_is_light():
    code = "import sys, sbp_tune.energy; print(*sys.modules)"
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    loaded = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    heavy = {"torch", "ray", "pandas", "numpy", "pydantic", "psutil", "pynvml", "codecarbon", "pycountry"}
    assert not heavy & set(loaded.stdout.split())


# --- exact numbers ---------------------------------------------------------------------------------------------------


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
            if moment / 10 - last.seconds > 0 or moment == 0:
                reading = energy.read()
                assert reading.kwh >= last.kwh
                last = reading
        clock.now = start + end
    assert joules(energy.read().kwh_gpu) == pytest.approx(60 * end, abs=6.001)
    assert joules(energy.read().kwh_ram) == pytest.approx(3 * end)
    assert energy.cpu_seconds == pytest.approx(end)


def test_defaults_are_those_of_the_config(meter, clock):
    config = EnergyConfig(country="IRL", pue=1.2)
    with meter(country="IRL", pue=1.2) as by_hand:
        clock.advance(1000)
        from_config = EnergyMeter.from_config(config)
    for name in ("_co2_kg_per_kwh", "_idle_share", "_cpu_idle_w", "_cpu_busy_w", "_ram_w_per_gb"):
        assert getattr(by_hand, name) == getattr(from_config, name)


# --- what cannot be measured is not zero -----------------------------------------------------------------------------


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


# --- what cannot be true is an error ---------------------------------------------------------------------------------


def test_the_second_papers_power_is_rejected(meter, clock, library, uuids):
    library.gpus[0].limit_w = 50
    library.gpus[0].power_w = 107_500 / 104  # DenseNet, 100 epochs of 1.04 s: 1034 W
    with pytest.raises(SbpTuneError, match=r"mean power 103\d W .* above its limit of 50 W"), meter(gpus=[uuids[0]]):
        clock.advance(104)


def test_a_gpu_at_its_limit_is_accepted_from_the_first_update_on(meter, clock, uuids):
    with meter(gpus=[uuids[0]]) as energy:
        for _ in range(50):
            clock.advance(0.05)
            energy.read()


def test_a_counter_that_stands_still_is_an_error(meter, clock, library, uuids):
    library.gpus[0].stuck = True
    with meter(gpus=[uuids[0]]) as energy:
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
        energy._failure, energy._final = None, energy  # lets the block end


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


@pytest.mark.parametrize(
    ("option", "value"),
    [("pue", 0.9), ("cpus", -1), ("cpu_idle_w", -1), ("cpu_busy_w", float("nan")), ("ram_w_per_gb", -0.1)],
)
def test_impossible_arguments_are_named(option, value):
    with pytest.raises(InputError, match=f"{option}: found"):
        EnergyMeter(**{option: value})


def test_an_unknown_country_is_an_error_before_the_run():
    with pytest.raises(InputError, match="did you mean IRL"):
        EnergyMeter(country="IE")


# --- life cycle ------------------------------------------------------------------------------------------------------


def test_readings_are_frozen_after_stop(meter, clock, uuids):
    energy = meter(gpus=[uuids[0]])
    energy.start()
    clock.advance(10)
    final = energy.stop()
    clock.advance(10)
    assert energy.read() is energy.stop() is final
    assert energy.kwh == final.kwh
    assert final.seconds == pytest.approx(10)


def test_an_error_in_the_block_leaves_a_reading(meter, clock):
    energy = meter()
    with pytest.raises(ZeroDivisionError), energy:
        clock.advance(10)
        raise ZeroDivisionError
    assert energy.read().seconds == pytest.approx(10)


def test_an_error_in_the_block_is_not_hidden_by_a_spoilt_measurement(meter, clock, library, uuids):
    energy = meter(gpus=[uuids[0]])
    with pytest.raises(ZeroDivisionError), energy:
        library.gpus[0].lost = True
        raise ZeroDivisionError
    with pytest.raises(SbpTuneError, match="GPU is lost"):
        energy.read()


def test_a_failed_background_sample_is_raised_by_the_next_reading(library, uuids):
    library.clock = time.monotonic
    library.gpus[0].unsupported = {"energy"}
    with pytest.raises(SbpTuneError, match="GPU is lost"), EnergyMeter(gpus=uuids[:1], nvml=Nvml(library)) as energy:
        library.gpus[0].lost = True
        while True:
            energy.read()
            time.sleep(0.05)


def test_a_meter_runs_once(meter):
    energy = meter()
    with pytest.raises(SbpTuneError, match="not been started"):
        energy.read()
    with energy:
        pass
    with pytest.raises(SbpTuneError, match="only once"):
        energy.start()


def test_no_thread_outlives_the_meter(library, uuids):
    library.gpus[0].unsupported = {"energy"}
    before = threading.active_count()
    with EnergyMeter(gpus=uuids[:1], nvml=Nvml(library)):
        assert threading.active_count() == before + 2
    assert threading.active_count() == before


def test_many_threads_may_read():
    readings = []
    with EnergyMeter() as energy:
        threads = [threading.Thread(target=lambda: readings.extend(energy.read() for _ in range(50))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(readings) == 200
    assert energy.kwh >= max(reading.kwh for reading in readings)
