from __future__ import annotations

import dataclasses
import io
import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from sbp_tune.config import EnergyConfig
from sbp_tune.doctor import doctor_facts, print_doctor
from sbp_tune.energy.nvml import Gpu

T4 = Gpu(0, "GPU-1a6f2f0c-8a2d-4b7e-9d9b-0c4b2f6e7a11", "Tesla [T4]", True, 70.0, False)
P100 = Gpu(1, "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "Tesla P100", False, 250.0, False)
MIG = Gpu(2, "GPU-c0ffee12-6d0a-4b9c-b1a7-f3e4d5c6b7a8", "NVIDIA A100", True, None, True)
NO_GPU = "the NVIDIA driver does not answer: NVML Shared Library Not Found"


def fake_nvml(*gpus: Gpu) -> SimpleNamespace:
    by_uuid = {gpu.uuid: gpu for gpu in gpus}
    return SimpleNamespace(
        reason=None if gpus else NO_GPU,
        inventory=lambda: list(gpus),
        mig=lambda uuid: by_uuid[uuid].mig,
        total_energy_j=lambda uuid: 1.0 if by_uuid[uuid].energy_counter else None,
        power_w=lambda uuid: 25.0,
    )


def shown(facts: dict) -> str:
    text = io.StringIO()
    print_doctor(Console(file=text, width=300), facts)
    return text.getvalue()


def test_a_machine_without_gpu_says_what_is_modelled():
    facts = doctor_facts(nvml=fake_nvml())
    assert (facts["gpus"], facts["no_gpu_reason"], facts["measured"]) == ([], NO_GPU, {})
    assert (
        f"On this machine the GPU is not measured (no GPU: {NO_GPU}); CPU and RAM energy will be modelled: "
        "0.74 W per logical core + 2.76 W more when busy, 0.392 W/GB."
    ) in shown(facts)


def test_the_coefficients_are_those_of_the_config():
    facts = doctor_facts(EnergyConfig(cpu_idle_w=45, cpu_busy_w=3.5, ram_w_per_gb=0.4), fake_nvml())
    assert facts["modelled"] == {"cpu": "45 W per logical core + 3.5 W more when busy", "ram": "0.4 W/GB"}


def test_each_gpu_has_its_source():
    facts = doctor_facts(nvml=fake_nvml(T4, P100, MIG))
    assert [gpu["energy"] for gpu in facts["gpus"]] == ["counter", "integrated", "none"]
    assert facts["measured"] == {T4.uuid: "counter", P100.uuid: "integrated"}
    text = shown(facts)
    assert "2 of 3 GPUs can be measured" in text
    assert T4.uuid in text
    assert "Tesla [T4]" in text  # not taken for Rich's markup


def test_a_measured_gpu_is_said_to_be():
    assert "GPU energy will be measured by its energy counter" in shown(doctor_facts(nvml=fake_nvml(T4)))


@pytest.mark.parametrize(("mode", "expected"), [(0o444, "readable"), (0o000, "present, but not readable (permission)")])
def test_rapl(mode, expected, tmp_path, monkeypatch):
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "energy_uj").write_text("1\n")
    monkeypatch.setattr(os, "access", lambda path, how: bool(mode & 0o400))  # root may read anything
    assert doctor_facts(nvml=fake_nvml(), powercap=tmp_path)["rapl"] == expected


@pytest.mark.parametrize("dram", [True, False])
def test_what_rapl_measures_is_not_said_to_be_modelled(dram, tmp_path):
    for folder, name in [("intel-rapl:0", "package-0"), *([("intel-rapl:0:0", "dram")] if dram else [])]:
        (tmp_path / folder).mkdir()
        for file, text in (("name", name), ("energy_uj", "1000"), ("max_energy_range_uj", "262143328850")):
            (tmp_path / folder / file).write_text(f"{text}\n")
    facts = doctor_facts(nvml=fake_nvml(), powercap=tmp_path)
    assert facts["measured_by_rapl"] == (["cpu", "ram"] if dram else ["cpu"])
    assert list(facts["modelled"]) == ([] if dram else ["ram"])
    text = shown(facts)
    assert f"{'CPU and RAM' if dram else 'CPU'} energy will be measured by RAPL" in text
    assert ("RAM energy will be modelled: 0.392 W/GB." in text) is not dram


def test_no_rapl(tmp_path):
    assert doctor_facts(nvml=fake_nvml(), powercap=tmp_path)["rapl"] == "absent"
    assert doctor_facts(nvml=fake_nvml(), powercap=tmp_path / "none")["rapl"] == "absent"


def test_facts_of_this_machine_are_plain_data_and_need_no_network(monkeypatch):
    def no_network(*args: object, **options: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "socket", no_network)
    facts = doctor_facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["cpu"]["logical_cores"] == os.cpu_count()
    assert facts["ram_gb"] > 0.5
    assert facts["versions"]["codecarbon"]
    assert "On this machine" in shown(facts)


def test_nothing_heavy_is_imported():
    code = "import sys; from sbp_tune.doctor import doctor_facts; doctor_facts(); print(*sys.modules)"
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    loaded = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "pandas", "optuna", "codecarbon"} & set(loaded.stdout.split())


def test_what_only_root_may_read_comes_with_the_remedy(tmp_path, monkeypatch):
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "energy_uj").write_text("1\n")
    monkeypatch.setattr(os, "access", lambda path, how: False)
    assert "sudo chmod a+r /sys/class/powercap" in shown(doctor_facts(nvml=fake_nvml(), powercap=tmp_path))


def test_a_gpu_that_cannot_be_measured_says_why():
    assert "none: the instances of a split GPU (MIG) have no counter" in shown(doctor_facts(nvml=fake_nvml(MIG)))


def test_an_amd_gpu_is_said_not_to_be_measured(tmp_path):
    device = tmp_path / "card0" / "device"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x1002\n")
    (device / "uevent").write_text("PCI_SLOT_NAME=0000:03:00.0\n")
    facts = doctor_facts(nvml=fake_nvml(), drm=tmp_path)
    assert "AMD GPU 0000:03:00.0: not measured" in shown(facts)
    assert facts["measured"] == {}


def orin_nx(root):
    monitor = root / "hwmon1"
    monitor.mkdir()
    for name, text in [("name", "ina3221"), ("in1_label", "VDD_IN"), ("in1_input", "5000"), ("curr1_input", "3000")]:
        (monitor / name).write_text(f"{text}\n")
    return root


@pytest.mark.parametrize("listed", [True, False])
def test_a_jetson_is_measured_by_its_rails(listed, tmp_path):
    nvml = fake_nvml(*([dataclasses.replace(MIG, name="Orin (nvgpu)")] if listed else []))
    facts = doctor_facts(nvml=nvml, hwmon=orin_nx(tmp_path))
    assert json.loads(json.dumps(facts)) == facts
    assert list(facts["measured"].values()) == ["integrated"]
    assert facts["modelled"] == {}
    assert "summing up its power readings, which hold CPU and RAM too: the whole module is measured" in shown(facts)
