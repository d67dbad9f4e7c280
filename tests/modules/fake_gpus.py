"""Four GPUs that exist only in the meter, and trials that hold them: what Ray's workers import by name."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import ray

from sbp_tune.energy.counters.machine import MachineCounters, MachineReading
from sbp_tune.energy.nvml import Nvml
from sbp_tune.errors import SbpTuneError
from trainables.sparse_backprop import SparseBackprop

UUIDS = [
    "GPU-1a6f2f0c-8a2d-4b7e-9d9b-0c4b2f6e7a11",
    "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
    "GPU-8932f940-0b1e-4c55-8a60-5d3c1e2f9b02",
    "GPU-c0ffee12-6d0a-4b9c-b1a7-f3e4d5c6b7a8",
]
if node := os.environ.get("SBP_TUNE_TEST_NODE"):  # one of several on this machine, each with GPUs of its own
    UUIDS = [f"GPU-{int(node):08x}{uuid[12:]}" for uuid in UUIDS]
WATTS = (40.0, 30.0, 20.0, 10.0)


class _Library:
    """pynvml as a module would answer, of GPUs with constant power."""

    NVMLError = pynvml.NVMLError
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVMLError_FunctionNotFound = pynvml.NVMLError_FunctionNotFound

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetCount": lambda: len(UUIDS),
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda gpu: UUIDS[gpu],
            "nvmlDeviceGetName": lambda gpu: "Tesla T4",
            "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: round(time.monotonic() * WATTS[gpu] * 1000),
            "nvmlDeviceGetPowerUsage": lambda gpu: round(WATTS[gpu] * 1000),
            "nvmlDeviceGetPowerManagementLimit": lambda gpu: 70_000,
            "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=80, memory=0),
            "nvmlDeviceGetMigMode": lambda gpu: [0, 0],
        }
        return answers[name]


def fake_nvml() -> Nvml:
    """In place of this machine's."""
    return Nvml(_Library())


def counters(**coefficients: float) -> MachineCounters:
    """For SBP_TUNE_COUNTERS."""
    return MachineCounters(nvml=Nvml(_Library()), **coefficients)


class _Failing(MachineCounters):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.reads = 0

    def read(self) -> MachineReading:
        self.reads += 1
        if self.reads > 8:
            raise SbpTuneError("the counters have come to an end")
        return super().read()


def failing(**coefficients: float) -> MachineCounters:
    """For SBP_TUNE_COUNTERS: a machine that cannot be read after a while."""
    return _Failing(nvml=Nvml(_Library()), **coefficients)


def broken(**coefficients: float) -> MachineCounters:
    """For SBP_TUNE_COUNTERS: a machine that cannot be read."""
    raise OSError("no counters here")


class OnFakeGpus(SparseBackprop):
    """Trains on the processor, and leases the GPUs that Ray gave it."""

    def _lease(self, config: Any) -> Any:
        lease = super()._lease(config)
        mine = [UUIDS[int(number)] for number in ray.get_runtime_context().get_accelerator_ids()["GPU"]]
        return lambda _gpus: lease(mine)


class Slow(OnFakeGpus):
    """Slow enough to be killed between two epochs."""

    def step(self) -> dict[str, Any]:
        time.sleep(0.5)
        return super().step()


class Deadly(OnFakeGpus):
    """Kills its own process after the second epoch of each attempt of the trial of seed 1."""

    def step(self) -> dict[str, Any]:
        row = super().step()
        if self._given["seed"] == 1 and self.iteration == 1 and self._kills(self._given["lease"]["attempt"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return row

    def _kills(self, attempt: int) -> bool:
        return True


class DeadlyOnce(Deadly):
    """Likewise, in the first attempt."""

    def _kills(self, attempt: int) -> bool:
        return attempt == 0


class Hopeless(OnFakeGpus):
    """Stopped by the scheduler after its first epoch; it writes down when its process was about to be used again."""

    def step(self) -> dict[str, Any]:
        return super().step() | {"val_accuracy": math.nan}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        time.sleep(2)
        Path(new_config["lease"]["folder"], "reused").write_text(str(time.monotonic()))
        return super().reset_config(new_config)
