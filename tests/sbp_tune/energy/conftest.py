"""Four fake T4s behind pynvml's own functions and errors, RAPL zones, a clock that moves when told; meters on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from sbp_tune.energy import EnergyMeter, living_lease
from sbp_tune.energy.counters import machine as machine_module
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

    def alive(self) -> bool:
        return True


class FakeHost:
    """A machine on which `busy` cores work, one of them for FakeTree, by the fake clock; change it before a meter."""

    cpus, ram_gb = os.cpu_count() or 1, 64.0

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.busy = clock, 1.0

    def busy_s(self) -> float:
        return self.busy * self.clock()

    def used_gb(self) -> float:
        return 10.0


SPAN_UJ = 262_143_328_850


class FakeRapl:
    """Zones as Linux lists them in /sys/class/powercap: flat, and those inside a package also inside its folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def zone(self, folder: str, name: str, uj: int = 1_000_000, span_uj: int = SPAN_UJ) -> Path:
        parent, _, _ = folder.rpartition(":")
        path = self.root / (f"{parent}/{folder}" if folder.count(":") == 2 else folder)
        path.mkdir(parents=True)
        (path / "name").write_text(f"{name}\n")
        (path / "energy_uj").write_text(f"{uj}\n")
        (path / "max_energy_range_uj").write_text(f"{span_uj}\n")
        if path.parent != self.root:
            (self.root / folder).symlink_to(path)
        (self.root / folder.partition(":")[0]).mkdir(exist_ok=True)  # the interface itself
        return path

    def use(self, folder: str, joules: float) -> None:
        """Adds to a zone's counter, which starts again after its range."""
        path = self.root / folder
        span = int((path / "max_energy_range_uj").read_text())
        raw = (int((path / "energy_uj").read_text()) + round(joules * 1e6)) % span
        (path / "energy_uj").write_text(f"{raw}\n")


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
def host(clock: FakeClock) -> FakeHost:
    return FakeHost(clock)


@pytest.fixture
def rapl(tmp_path: Path) -> FakeRapl:
    (tmp_path / "powercap").mkdir()
    return FakeRapl(tmp_path / "powercap")


@pytest.fixture
def meter(
    clock: FakeClock, nvml: Nvml, host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., EnergyMeter]:
    """make(): a meter of FakeTree on FakeHost with four T4s, and without RAPL."""
    monkeypatch.setattr(living_lease, "ProcessTree", lambda pid, **options: FakeTree(clock))
    monkeypatch.setattr(machine_module, "Host", lambda proc: host)
    none = {"powercap": tmp_path / "none", "hwmon": tmp_path / "none"}
    # 10 W for the idle machine, 6 W more for each busy core
    coefficients = {"cpu_idle_w": 10 / (os.cpu_count() or 1), "cpu_busy_w": 6, "ram_w_per_gb": 0.375}
    return lambda **options: EnergyMeter(**{"nvml": nvml, "clock": clock} | none | coefficients | options)
