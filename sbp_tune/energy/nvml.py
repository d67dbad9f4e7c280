"""NVIDIA's management library behind one small object: GPUs by UUID, in joules and watts."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from sbp_tune.errors import SbpTuneError


@dataclass(frozen=True)
class Gpu:
    """One GPU as NVML lists it; index: NVML's, which is CUDA's under CUDA_DEVICE_ORDER=PCI_BUS_ID."""

    index: int
    uuid: str
    name: str
    energy_counter: bool
    power_limit_w: float | None
    mig: bool


class Nvml:
    """Reads NVML. On a machine without GPU or driver it lists none, and `reason` says why; no exception.

    Readings are None where the device does not support them (a counter needs Volta or newer). SbpTuneError for
    a UUID that is not on this machine and for a GPU that stopped answering. Safe to call from several threads.
    """

    def __init__(self, library: Any = None) -> None:
        """library: the pynvml module, or one that answers like it."""
        self.reason: str | None = None
        self._handles: dict[str, Any] = {}
        if library is None:
            try:
                import pynvml
            except ImportError:
                self.reason = "the package nvidia-ml-py is not installed"
                return
            library = pynvml
        self._library = library
        try:
            library.nvmlInit()
            for index in range(library.nvmlDeviceGetCount()):
                handle = library.nvmlDeviceGetHandleByIndex(index)
                self._handles[library.nvmlDeviceGetUUID(handle)] = handle
        except library.NVMLError as error:
            self._handles.clear()
            self.reason = f"the NVIDIA driver does not answer: {error}"
        else:
            self.reason = None if self._handles else "the NVIDIA driver lists no GPU"

    def uuids(self) -> list[str]:
        """UUIDs of all GPUs, in NVML's order."""
        return list(self._handles)

    def inventory(self) -> list[Gpu]:
        """All GPUs, in NVML's order."""
        return [
            Gpu(
                index=index,
                uuid=uuid,
                name=self.name(uuid),
                energy_counter=self.total_energy_j(uuid) is not None,
                power_limit_w=self.power_limit_w(uuid),
                mig=self.mig(uuid),
            )
            for index, uuid in enumerate(self._handles)
        ]

    def name(self, uuid: str) -> str:
        """The product's name."""
        return str(self._query(uuid, "nvmlDeviceGetName"))

    def total_energy_j(self, uuid: str) -> float | None:
        """Energy since the driver was loaded, J."""
        return _thousandths(self._query(uuid, "nvmlDeviceGetTotalEnergyConsumption"))

    def power_w(self, uuid: str) -> float | None:
        """Power now, W; NVML averages it over 10 ms to 1 s, by model."""
        return _thousandths(self._query(uuid, "nvmlDeviceGetPowerUsage"))

    def power_limit_w(self, uuid: str) -> float | None:
        """Power limit that is set now, W."""
        return _thousandths(self._query(uuid, "nvmlDeviceGetPowerManagementLimit"))

    def utilization(self, uuid: str) -> float | None:
        """Part of the last sample period, 1/6 to 1 s by model, in which a kernel ran; 0 to 1."""
        rates = self._query(uuid, "nvmlDeviceGetUtilizationRates")
        return None if rates is None else rates.gpu / 100

    def mig(self, uuid: str) -> bool:
        """Whether the UUID is of a MIG instance, or of a GPU split into them; no counter is of one instance.

        CUDA may give an instance's UUID without its `MIG-`, so on a machine with split GPUs a UUID that is no
        GPU's is taken for an instance.
        """
        if uuid.startswith("MIG-"):
            return True
        modes = [
            self._query(gpu, "nvmlDeviceGetMigMode") for gpu in ([uuid] if uuid in self._handles else self._handles)
        ]
        return any(mode and mode[0] for mode in modes)  # (now, after the next reset); None: cannot be split

    def _query(self, uuid: str, function: str) -> Any:
        if uuid not in self._handles:
            there = ", ".join(self._handles) or f"none: {self.reason}"
            raise SbpTuneError(f"GPU {uuid} is not on this machine (GPUs: {there})")
        try:
            return getattr(self._library, function)(self._handles[uuid])
        except (self._library.NVMLError_NotSupported, self._library.NVMLError_FunctionNotFound):
            return None
        except self._library.NVMLError as error:
            raise SbpTuneError(f"GPU {uuid} cannot be read: {function}: {error}") from error


def _thousandths(value: int | None) -> float | None:
    return None if value is None else value / 1000  # NVML counts mJ and mW


@functools.cache
def system_nvml() -> Nvml:
    """NVML of this machine, opened once in a process."""
    return Nvml()
