from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from sbp_tune.config import EnergyConfig
from sbp_tune.energy import EnergyMeter
from sbp_tune.energy.counters import machine as machine_module
from sbp_tune.energy.nvml import Nvml
from sbp_tune.errors import InputError, SbpTuneError

TICKS = 0.05  # CPU s by which the clocks of the machine and of a process may differ


def joules(kwh: float) -> float:
    return kwh * 3_600_000


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_one_busy_process_costs_what_the_model_says(tmp_path):
    model = {"cpu_idle_w": 20, "cpu_busy_w": 7, "ram_w_per_gb": 0.4, "powercap": tmp_path}
    with EnergyMeter(country="IRL", cpus=0.5, **model) as energy:
        burn(0.5)
    reading = energy.read()
    assert 0.45 < reading.cpu_seconds < 1.5
    assert joules(reading.kwh_cpu) == pytest.approx(20 * 0.5 * reading.seconds + 7 * reading.cpu_seconds, abs=7 * TICKS)
    assert reading.kwh == reading.kwh_cpu + reading.kwh_ram
    assert reading.co2_kg == pytest.approx(reading.kwh * 0.290805)
    assert 0 < joules(reading.kwh_ram) < 0.4 * 10 * reading.seconds


def test_a_cpu_run_has_no_gpu_component_and_never_opens_nvml(monkeypatch, tmp_path):
    def opened() -> Nvml:
        raise AssertionError("NVML was opened")

    monkeypatch.setattr(machine_module, "system_nvml", opened)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with EnergyMeter(powercap=tmp_path) as energy:
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


def test_a_process_that_has_ended_is_billed_up_to_its_end():
    code = "import time\ninput()\nwhile time.process_time() < 0.3: pass\nprint('burnt', flush=True)\ninput()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-S", "-E", "-c", code]
    with subprocess.Popen(command, **pipes) as child, EnergyMeter(pid=child.pid) as energy:
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        used = energy.read()
        child.communicate(b"\n")
        deadline = time.monotonic() + 20
        while (ended := energy.read()) != energy.read():  # within an interval it is found gone
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert ended.cpu_seconds >= used.cpu_seconds > 0.25
    assert energy.kwh == ended.kwh >= used.kwh


def test_importing_the_meter_is_light():
    code = "import sys, sbp_tune.energy; print(*sys.modules)"
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    loaded = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    heavy = {"torch", "ray", "pandas", "numpy", "pydantic", "psutil", "pynvml", "codecarbon", "pycountry"}
    assert not heavy & set(loaded.stdout.split())


def test_a_config_sets_all_but_the_machine(tmp_path):
    class WithoutRapl(EnergyMeter):
        def __init__(self, **options):
            super().__init__(powercap=tmp_path, **options)

    config = EnergyConfig(country="IRL", pue=2, cpu_idle_w=20, cpu_busy_w=7, ram_w_per_gb=0.4)
    with WithoutRapl.from_config(config, cpus=1) as energy:
        burn(0.1)
    reading = energy.read()
    assert joules(reading.kwh_cpu) == pytest.approx(20 * reading.seconds + 7 * reading.cpu_seconds, abs=7 * TICKS)
    assert reading.co2_kg == pytest.approx(reading.kwh * 2 * 0.290805)


def test_defaults_are_those_of_the_config():
    defaults = {name: option.default for name, option in inspect.signature(EnergyMeter).parameters.items()}
    of_a_run = EnergyConfig().model_dump(exclude={"gpu_idle_w"})  # a run alone shares no GPU
    assert of_a_run.items() <= defaults.items()


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
