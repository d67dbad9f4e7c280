"""Four fake T4s behind pynvml's own functions and errors, a clock that moves when told, and a meter on both."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace

import pynvml
import pytest

from sbp_tune.energy import EnergyMeter
from sbp_tune.energy import meter as meter_module
from sbp_tune.energy.nvml import Nvml

# As nvidia-smi prints them. The second and third share a prefix; the first is hurt by lstrip("MIG-") (CodeCarbon).
UUIDS = [
    "GPU-1a6f2f0c-8a2d-4b7e-9d9b-0c4b2f6e7a11",
    "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
    "GPU-8932f940-0b1e-4c55-8a60-5d3c1e2f9b02",
    "GPU-c0ffee12-6d0a-4b9c-b1a7-f3e4d5c6b7a8",
]


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeGpu:
    def __init__(self, uuid: str, power_w: float, limit_w: float = 70.0, name: str = "Tesla T4") -> None:
        self.uuid, self.power_w, self.limit_w, self.name = uuid, power_w, limit_w, name
        self.since_load_mj = 123_456_789.0
        self.unsupported: set[str] = set()
        self.mig = False
        self.lost = False
        self.stuck = False
        self.busy_percent = 80


class FakeLibrary:
    """pynvml as a module would answer; counters are quantised to the last update."""

    NVMLError = pynvml.NVMLError
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVMLError_FunctionNotFound = pynvml.NVMLError_FunctionNotFound

    def __init__(self, clock: FakeClock, update_s: float = 0.1) -> None:
        self.clock, self.update_s, self.loaded = clock, update_s, clock()
        watts = (70.0, 60.0, 50.0, 10.0)
        self.gpus = [FakeGpu(uuid, power) for uuid, power in zip(UUIDS, watts, strict=True)]

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:  # noqa: N802
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:  # noqa: N802
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:  # noqa: N802
        return gpu.name

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: FakeGpu) -> int:  # noqa: N802
        self._answer(gpu, "energy")
        updates = 0 if gpu.stuck else (self.clock() - self.loaded + 1e-9) // self.update_s
        return round(gpu.since_load_mj + updates * self.update_s * gpu.power_w * 1000)

    def nvmlDeviceGetPowerUsage(self, gpu: FakeGpu) -> int:  # noqa: N802
        self._answer(gpu, "power")
        return round(gpu.power_w * 1000)

    def nvmlDeviceGetPowerManagementLimit(self, gpu: FakeGpu) -> int:  # noqa: N802
        self._answer(gpu, "limit")
        return round(gpu.limit_w * 1000)

    def nvmlDeviceGetUtilizationRates(self, gpu: FakeGpu) -> SimpleNamespace:  # noqa: N802
        self._answer(gpu, "utilization")
        return SimpleNamespace(gpu=gpu.busy_percent, memory=0)

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:  # noqa: N802
        if not gpu.mig:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [1, 1]

    def _answer(self, gpu: FakeGpu, what: str) -> None:
        if gpu.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        if what in gpu.unsupported:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


class FakeTree:
    """One core busy, 8 GB resident, by the fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    def cpu_seconds(self) -> float:
        return self.clock()

    def memory_gb(self) -> float:
        return 8.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def library(clock: FakeClock) -> FakeLibrary:
    return FakeLibrary(clock)


@pytest.fixture
def nvml(library: FakeLibrary) -> Nvml:
    return Nvml(library)


@pytest.fixture
def uuids() -> list[str]:
    return list(UUIDS)


@pytest.fixture
def meter(clock: FakeClock, nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> Callable[..., EnergyMeter]:
    monkeypatch.setattr(meter_module, "ProcessTree", lambda pid: FakeTree(clock))
    # 10 W for the idle machine, 6 W more for each busy core
    coefficients = {"cpu_idle_w": 10 / (os.cpu_count() or 1), "cpu_busy_w": 6, "ram_w_per_gb": 0.375}
    return lambda **options: EnergyMeter(**{"nvml": nvml, "clock": clock} | coefficients | options)
