from __future__ import annotations

import time

import pytest

from sbp_tune.energy import EnergyMeter
from sbp_tune.energy.counters.jetson import BOARDS, Jetson, find_rails
from sbp_tune.energy.nvml import Nvml
from sbp_tune.errors import SbpTuneError


def joules(jetson, part, clock, seconds=10):
    for _ in range(round(seconds / 0.1)):
        clock.advance(0.1)
        jetson.sample(clock())
    return jetson.joules(part, clock())


def test_agx_orin_has_no_input_rail_so_its_rails_are_summed_without_the_disabled_one(hwmon, clock):
    jetson = Jetson(clock(), hwmon.board(hwmon.AGX_ORIN))
    assert jetson.board.name == "Jetson AGX Orin"
    assert joules(jetson, "gpu", clock) == pytest.approx(160)  # 20 V x 0.8 A
    assert jetson.joules("cpu", clock()) == pytest.approx(60)
    assert jetson.joules("dram", clock()) == pytest.approx(15)  # VIN_SYS_5V0, 4.5 W, feeds this rail: in none
    assert jetson.parts["gpu"].name == "Jetson AGX Orin (VDD_GPU_SOC)"
    assert jetson.parts["gpu"].boundary == "GPU and SoC"
    assert {part.source for part in jetson.parts.values()} == {"integrated"}


def test_orin_nx_is_measured_as_a_module_and_its_cpu_gpu_rail_is_not_the_processor(hwmon, clock):
    jetson = Jetson(clock(), hwmon.board(hwmon.ORIN_NX))
    assert joules(jetson, "gpu", clock) == pytest.approx(200)  # 5 V x 4 A: all there is
    assert "whole module" in jetson.parts["gpu"].boundary
    for part in ("cpu", "dram"):
        assert jetson.parts[part].source == "none"
        assert jetson.parts[part].included_in == "gpu"
        assert jetson.joules(part, clock()) is None


def test_agx_xavier_is_the_sum_of_its_six_rails(hwmon, clock):
    jetson = Jetson(clock(), hwmon.board(hwmon.AGX_XAVIER))
    assert jetson.board.name == "Jetson AGX Xavier"
    assert joules(jetson, "gpu", clock) == pytest.approx(114)  # GPU and SOC, as Orin's VDD_GPU_SOC
    assert jetson.joules("cpu", clock()) == pytest.approx(78)
    assert jetson.joules("dram", clock()) == pytest.approx(9.5)


def test_power_is_volts_times_amperes_at_each_sample(hwmon, clock):
    jetson = Jetson(clock(), hwmon.board(hwmon.ORIN_NX))
    assert joules(jetson, "gpu", clock, 10) == pytest.approx(200)
    hwmon.draw("VDD_IN", 8_000)
    hwmon.channel("VDD_IN", "in").write_text("4900\n")
    assert joules(jetson, "gpu", clock, 10) == pytest.approx(200 + 392, rel=0.01)


def test_a_kernel_that_does_not_label_the_memory_leaves_it_out(hwmon, clock):
    first, _ = hwmon.AGX_ORIN
    jetson = Jetson(clock(), hwmon.board((first,)))
    assert set(jetson.parts) == {"gpu", "cpu"}


def test_a_channel_that_is_off_or_not_connected_is_no_rail(hwmon, clock):
    root = hwmon.board(hwmon.AGX_ORIN)
    label = hwmon.channel("VDDQ_VDD2_1V8AO", "in")
    label.with_name("in2_enable").write_text("0\n")
    assert set(find_rails(root)) == {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"}


def test_an_unknown_board_is_named_and_not_guessed_at(hwmon, clock):
    jetson = Jetson(clock(), hwmon.board(({"VDD_NEW": (5_000, 100), "VDD_CPU": (5_000, 100)},)))
    assert jetson.parts == {} and not jetson.sampled
    assert jetson.reason == "the power rails VDD_CPU, VDD_NEW are of no known board"


def test_what_is_no_jetson_has_no_parts(tmp_path, hwmon, clock):
    for root in (hwmon.root, tmp_path / "none"):
        jetson = Jetson(clock(), root)
        assert (jetson.parts, jetson.reason) == ({}, None)


def test_a_rail_that_cannot_be_read_is_none_with_a_reason(hwmon, clock):
    root = hwmon.board(hwmon.ORIN_NX)
    hwmon.channel("VDD_IN", "curr").unlink()
    jetson = Jetson(clock(), root)
    assert jetson.parts["gpu"].source == "none"
    assert "cannot be read" in jetson.parts["gpu"].reason


def test_a_rail_that_fails_in_the_middle_is_an_error(hwmon, clock):
    jetson = Jetson(clock(), hwmon.board(hwmon.ORIN_NX))
    hwmon.channel("VDD_IN", "curr").write_text("")
    clock.advance(0.1)
    jetson.sample(clock())
    with pytest.raises(SbpTuneError, match="a power rail can no longer be read"):
        jetson.joules("gpu", clock())


def test_the_second_papers_power_is_rejected(hwmon, clock):
    root = hwmon.board(hwmon.AGX_ORIN)
    hwmon.draw("VDD_GPU_SOC", 51_700)
    jetson = Jetson(clock(), root)
    with pytest.raises(SbpTuneError, match=r"VDD_GPU_SOC\): mean power 1034 W .* above its limit of 75 W"):
        joules(jetson, "gpu", clock, 104)


def test_families_do_not_overlap():
    for board in BOARDS:
        labels = {rail for rails in board.rails.values() for rail in rails} | set(board.left_out)
        assert [other.name for other in BOARDS if other.recognises(labels)] == [board.name]


def orin(library) -> Nvml:
    """NVML as a Jetson has it: one GPU, and NotSupported to every question."""
    library.gpus = library.gpus[:1]
    library.gpus[0].name = "Orin (nvgpu)"
    library.gpus[0].unsupported = {"energy", "power", "limit", "utilization"}
    return Nvml(library)


@pytest.mark.parametrize("listed", [True, False])
def test_a_meter_measures_a_jetson_that_nvml_is_silent_about(listed, meter, clock, library, hwmon, uuids):
    nvml = orin(library)
    if not listed:
        library.gpus = []
        nvml = Nvml(library)
    with meter(gpus=uuids[:1], nvml=nvml, hwmon=hwmon.board(hwmon.AGX_ORIN)) as energy:
        clock.advance(10)
    reading = energy.read()
    assert reading.components["gpu"].source == "integrated"
    assert reading.kwh_gpu * 3.6e6 == pytest.approx(160)
    assert reading.components["cpu"].source == "integrated"
    assert 0 < reading.kwh_cpu * 3.6e6 <= 60  # the rail is the machine's, the run perhaps only a part of it
    assert reading.gpu_busy_seconds is None


def test_a_module_that_is_measured_whole_is_not_modelled_on_top(meter, clock, library, hwmon, uuids):
    with meter(gpus=uuids[:1], nvml=orin(library), hwmon=hwmon.board(hwmon.ORIN_NX)) as energy:
        clock.advance(10)
    reading = energy.read()
    assert set(reading.components) == {"gpu"}
    assert reading.kwh * 3.6e6 == pytest.approx(200)
    assert reading.measured_share == 1


def test_without_rails_a_silent_gpu_is_none_and_not_0(meter, clock, library, uuids, tmp_path):
    with meter(gpus=uuids[:1], nvml=orin(library), hwmon=tmp_path) as energy:
        clock.advance(10)
    assert energy.components["gpu"].source == "none"
    assert energy.read().kwh_gpu is None


def test_a_meter_samples_the_rails_in_the_background(library, hwmon, uuids):
    root = hwmon.board(hwmon.ORIN_NX)
    with EnergyMeter(gpus=uuids[:1], nvml=orin(library), hwmon=root) as energy:
        hwmon.draw("VDD_IN", 9_000)  # only a later sample can know
        while energy.read().mean_power_w < 30:
            time.sleep(0.05)
