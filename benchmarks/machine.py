"""The machine that a benchmark runs on: its name, memory in use, energy counter."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from sbp_tune.energy.devices import nvml_uuid


def machine_name(device: torch.device) -> str:
    """Name of the GPU, or of the CPU with the number of threads, fit for a file name."""
    if device.type == "cuda":
        return _plain(torch.cuda.get_device_name(device))
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = f"{found.get('model name', 'cpu')} model {found['model']}" if "model" in found else "cpu"
    return f"{_plain(name)}_{torch.get_num_threads()}threads"


def peak_mb(step: Callable[[], None], device: torch.device) -> float:
    """MB that a step holds at most, beside what was there before it (weights and optimizer state)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    now = most = 0
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most / 1e6


def joules(device: torch.device) -> float | None:
    """Reading of the GPU's energy counter, of which only differences mean anything; None where there is none."""
    if device.type != "cuda":
        return None
    import pynvml

    pynvml.nvmlInit()
    gpu = pynvml.nvmlDeviceGetHandleByUUID(nvml_uuid(torch.cuda.get_device_properties(device).uuid))
    try:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)) / 1000
    except pynvml.NVMLError:
        return None


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", re.sub(r"\((R|TM)\)", "", name)).strip("-")
