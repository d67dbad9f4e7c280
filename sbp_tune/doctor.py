"""What this machine can measure, what will be modelled, and which versions are installed."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbp_tune.config import EnergyConfig
from sbp_tune.energy.counters.gpu import energy_source, why_none
from sbp_tune.energy.counters.jetson import GPU, HWMON, Jetson
from sbp_tune.energy.counters.part import CPU, DRAM, Part
from sbp_tune.energy.counters.rapl import PERMISSION, POWERCAP, Rapl
from sbp_tune.energy.counters.unsupported import DRM, not_measured
from sbp_tune.energy.nvml import Nvml, system_nvml
from sbp_tune.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

_PACKAGES = ("torch", "torchvision", "ray", "optuna", "codecarbon")
_NO_PERMISSION = "present, but not readable (permission)"
_HOW = {"counter": "its energy counter", "integrated": "summing up its power readings"}


def doctor_facts(
    energy: EnergyConfig | None = None,
    nvml: Nvml | None = None,
    powercap: Path = POWERCAP,
    hwmon: Path = HWMON,
    drm: Path = DRM,
) -> dict[str, Any]:
    """Plain data, by topic; imports none of the packages it lists, asks no network.

    energy: the coefficients of the models; the rest: for tests. Powers in W, memory in GB (1e9 bytes).
    """
    import psutil

    energy = energy or EnergyConfig()
    nvml = nvml or system_nvml()
    jetson = Jetson(time.monotonic(), hwmon)
    gpus = [
        dataclasses.asdict(gpu) | {"energy": energy_source(gpu.uuid, nvml), "why_none": why_none(gpu.uuid, nvml)}
        for gpu in nvml.inventory()
    ]
    if GPU in jetson.parts:
        gpus = _with_jetson(gpus, jetson.parts[GPU])
    parts = Rapl(time.monotonic(), powercap).parts
    by_rapl = [name for name, part in (("cpu", CPU), ("ram", DRAM)) if parts[part].source == "counter"]
    modelled = {
        "cpu": f"{energy.cpu_idle_w:g} W per logical core + {energy.cpu_busy_w:g} W more when busy",
        "ram": f"{energy.ram_w_per_gb:g} W/GB",
    }
    if CPU in jetson.parts and jetson.parts[CPU].included_in:
        by_rapl, modelled = [], {}
    return {
        "gpus": gpus,
        "no_gpu_reason": nvml.reason,
        "rapl": _rapl(powercap),
        "cpu": {
            "model": _cpu_model(),
            "logical_cores": os.cpu_count(),
            "physical_cores": psutil.cpu_count(logical=False),
        },
        "ram_gb": psutil.virtual_memory().total / 1e9,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "measured": {gpu["uuid"]: gpu["energy"] for gpu in gpus if gpu["energy"] != "none"},
        "not_measured": [*not_measured(drm), *([jetson.reason] if jetson.reason else [])],
        "measured_by_rapl": by_rapl,
        "modelled": {name: formula for name, formula in modelled.items() if name not in by_rapl},
    }


def print_doctor(console: Console, facts: dict[str, Any] | None = None) -> None:
    """Shows `doctor_facts` as tables and one plain sentence on what energy figures will mean here."""
    from rich.table import Table
    from rich.text import Text

    facts = doctor_facts() if facts is None else facts
    cpu = facts["cpu"]
    machine = Table("Machine", "")
    machine.add_row("Processor", Text(cpu["model"]))
    machine.add_row("Cores", f"{cpu['logical_cores']} logical, {cpu['physical_cores'] or 'unknown'} physical")
    machine.add_row("Memory", f"{facts['ram_gb']:.1f} GB")
    machine.add_row("RAPL", facts["rapl"])
    if facts["rapl"] == _NO_PERMISSION:
        machine.add_row("", Text(PERMISSION))
    if not facts["gpus"]:
        machine.add_row("GPU", Text(f"none ({facts['no_gpu_reason']})"))
    for line in facts["not_measured"]:
        machine.add_row("Not measured", Text(line))
    console.print(machine)

    if facts["gpus"]:
        gpus = Table("GPU", "Name", "UUID", "Energy", "Power limit")
        for gpu in facts["gpus"]:
            limit = f"{gpu['power_limit_w']:.0f} W" if gpu["power_limit_w"] else "unknown"
            energy = f"none: {gpu['why_none']}" if gpu["why_none"] else gpu["energy"]
            gpus.add_row(str(gpu["index"]), Text(gpu["name"]), Text(gpu["uuid"]), Text(energy), limit)
        console.print(gpus)

    versions = Table("Software", "Version")
    for name, version in facts["versions"].items():
        versions.add_row(name, version or "not installed")
    console.print(versions)
    console.print(Text(summary(facts)))


def print_study_doctor(path: Path, overrides: list[str] | None, console: Console) -> None:
    """Shows what a study file needs of this machine; InputError, at its end, for all that is missing."""
    import psutil

    from sbp_tune.study.file import load_study_file
    from sbp_tune.study.needs import print_needs, study_needs

    study = load_study_file(path, overrides)
    needs = study_needs(study)
    print_needs(study, needs, psutil.virtual_memory().total / 1e9, console)
    for gpu in doctor_facts()["gpus"]:
        console.print(f"GPU {gpu['index']}: {gpu['name']}", markup=False, highlight=False)
    if needs["problems"]:
        raise InputError(needs["problems"])


def summary(facts: dict[str, Any]) -> str:
    """One sentence: what is measured on this machine, and by which formula the rest is modelled."""
    gpus, measured = facts["gpus"], facts["measured"]
    if not gpus:
        gpu = f"the GPU is not measured (no GPU: {facts['no_gpu_reason']})"
    elif len(measured) < len(gpus):
        gpu = f"{len(measured)} of {len(gpus)} GPUs can be measured (see the table)"
    else:
        gpu = f"GPU energy will be measured by {' and '.join(_HOW[how] for how in sorted(set(measured.values())))}"
    modelled, by_rapl = facts["modelled"], facts["measured_by_rapl"]
    if not modelled and not by_rapl:
        return f"On this machine {gpu}, which hold CPU and RAM too: the whole module is measured."
    rapl = f"; {_names(by_rapl)} energy will be measured by RAPL" if by_rapl else ""
    rest = f"; {_names(modelled)} energy will be modelled: {', '.join(modelled.values())}" if modelled else ""
    return f"On this machine {gpu}{rapl}{rest}."


def _names(parts: Iterable[str]) -> str:
    return " and ".join(map(str.upper, parts))


def _rapl(powercap: Path) -> str:
    counters = list(powercap.glob("intel-rapl:*/energy_uj"))
    if not counters:
        return "absent"
    readable = all(os.access(counter, os.R_OK) for counter in counters)
    return "readable" if readable else _NO_PERMISSION


def _with_jetson(gpus: list[dict[str, Any]], part: Part) -> list[dict[str, Any]]:
    """The GPUs, of which one that NVML cannot measure, or does not list, is the Jetson's."""
    mine = next((gpu for gpu in gpus if gpu["energy"] == "none"), None)
    measured = {"energy": part.source, "why_none": part.reason, "power_limit_w": part.limit_w}
    if mine is None:
        uuid = {"index": len(gpus), "uuid": GPU, "name": part.name, "energy_counter": False, "mig": False}
        return [*gpus, uuid | measured]
    return [gpu | measured if gpu is mine else gpu for gpu in gpus]


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
