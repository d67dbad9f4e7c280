"""Energy of NVIDIA GPUs: the counter, else power summed over time, else nothing; implausible is an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sbp_tune.energy.counters.part import Part, unmeasured
from sbp_tune.energy.counters.plausible import Plausible
from sbp_tune.energy.integral import Integral
from sbp_tune.energy.nvml import Nvml
from sbp_tune.energy.reading import Source
from sbp_tune.errors import SbpTuneError

# NVML updates counter and power about every 100 ms (10 to 100 ms by model).
UPDATE_PERIOD_S = 0.1

# Against an external meter, boards read 0.4 to 13 % wrong (arXiv 2312.02741), constant for one board.
COUNTER_UNCERTAINTY = 0.1
# The power of some models covers only a quarter of the time (same source); no figure for it: an assumption.
INTEGRATED_UNCERTAINTY = 0.15

_BOUNDARY = "GPU board"


def energy_source(uuid: str, nvml: Nvml) -> Source:
    """The best source of a GPU's energy: `counter`, `integrated`, or `none`.

    None for a MIG instance (it shows its parent's counter), for a GPU that reports neither energy nor power, and
    where NVML does not answer; SbpTuneError for a GPU that is not on this machine.
    """
    return "none" if why_none(uuid, nvml) else "integrated" if nvml.total_energy_j(uuid) is None else "counter"


def why_none(uuid: str, nvml: Nvml) -> str | None:
    """Why a GPU cannot be measured, None if it can."""
    if nvml.reason is not None:
        return nvml.reason
    if nvml.mig(uuid):
        return "the instances of a split GPU (MIG) have no counter of their own"
    if nvml.total_energy_j(uuid) is None and nvml.power_w(uuid) is None:
        return "the driver reports neither energy nor power (NotSupported)"
    return None


class GpuEnergy:
    """Joules of one GPU since construction; not thread-safe.

    source: as `energy_source` says; `integrated` needs `sample` every UPDATE_PERIOD_S. SbpTuneError for
    readings that cannot be true.
    """

    def __init__(self, uuid: str, nvml: Nvml, now: float) -> None:
        self.uuid = uuid
        self.source = energy_source(uuid, nvml)
        self._nvml = nvml
        self._counter_start = 0.0
        if self.source == "none":
            return
        if self.source == "counter":
            self._counter_start = self._counter()
        else:
            self._power = Integral(now, self._power_w())
        self._plausible = Plausible(
            f"GPU {uuid}",
            "energy counter" if self.source == "counter" else "power reading",
            now,
            nvml.power_limit_w(uuid),
            UPDATE_PERIOD_S,
            lambda: nvml.power_limit_w(uuid),
        )

    def sample(self, now: float) -> None:
        """Takes one power reading, if that is the source."""
        if self.source == "integrated":
            self._power.add(now, self._power_w())

    def joules(self, now: float) -> float | None:
        """Energy since the start, J; None if the source is `none`."""
        if self.source == "none":
            return None
        joules = self._counter() - self._counter_start if self.source == "counter" else self._power.until(now)
        return self._plausible.check(joules, now)

    @property
    def start_j(self) -> float:
        """What the counter read at the start, J since the driver was loaded; 0 where power is summed up."""
        return self._counter_start

    def _counter(self) -> float:
        return self._still_there(self._nvml.total_energy_j(self.uuid))

    def _power_w(self) -> float:
        return self._still_there(self._nvml.power_w(self.uuid))

    def _still_there(self, value: float | None) -> float:
        if value is None:
            raise SbpTuneError(f"GPU {self.uuid}: its energy can no longer be read")
        return value


class NvidiaGpus:
    """The `Counter` of all GPUs of a machine, by UUID: one object for one node, whoever uses the GPUs.

    nvml: None for no GPU; only: UUIDs, instead of all, and then SbpTuneError for one that is not on this machine. A
    GPU that fails fails alone, and for good: a lost or implausible GPU must not cost the others their energy.
    """

    def __init__(self, nvml: Nvml | None, now: float, only: Sequence[str] | None = None) -> None:
        self.parts: dict[str, Part] = {}
        self.sampled = False
        self._nvml = nvml
        self._gpus: dict[str, GpuEnergy] = {}
        self._failures: dict[str, SbpTuneError] = {}
        if nvml is None:
            return
        for uuid in nvml.uuids() if only is None else only:
            try:
                self.parts[uuid] = _part(uuid, nvml)
                self._gpus[uuid] = GpuEnergy(uuid, nvml, now)
            except SbpTuneError as error:  # lost before we came
                if only is not None:
                    raise
                self.parts[uuid] = unmeasured("GPU", _BOUNDARY, str(error))
        self.sampled = any(part.source == "integrated" for part in self.parts.values())

    def sample(self, now: float) -> None:
        """Takes one power reading of each GPU that has no counter."""
        for uuid, gpu in self._gpus.items():
            try:
                gpu.sample(now)
            except SbpTuneError as error:
                self._failures.setdefault(uuid, error)

    def joules(self, part: str, now: float) -> float | None:
        """Energy of the GPU with this UUID, J; see `Counter`. A counter's goes on where an earlier meter's ended."""
        if self.parts[part].source == "none":
            return None
        if part in self._failures:
            raise self._failures[part]
        try:
            joules = self._gpus[part].joules(now)
        except SbpTuneError as error:
            self._failures[part] = error
            raise
        return None if joules is None else self._gpus[part].start_j + joules

    def utilization(self, uuid: str) -> float | None:
        """Part of the time in which a kernel ran, 0 to 1; None where that cannot be read."""
        return self._quietly(uuid, Nvml.utilization)

    def power_w(self, uuid: str) -> float | None:
        """Power now, W, also of a GPU that has a counter; None where that cannot be read."""
        return self._quietly(uuid, Nvml.power_w)

    def _quietly(self, uuid: str, query: Callable[[Nvml, str], float | None]) -> float | None:
        """A reading that is no energy: a GPU that fails is left to `joules` to report."""
        if self._nvml is None or self.parts[uuid].source == "none" or uuid in self._failures:
            return None
        try:
            return query(self._nvml, uuid)
        except SbpTuneError:
            return None


def _part(uuid: str, nvml: Nvml) -> Part:
    if reason := why_none(uuid, nvml):  # also of what NVML does not list: a MIG instance, or any without a driver
        return unmeasured(nvml.name(uuid) if uuid in nvml.uuids() else f"GPU {uuid}", _BOUNDARY, reason)
    name, limit_w, source = nvml.name(uuid), nvml.power_limit_w(uuid), energy_source(uuid, nvml)
    counted = source == "counter"
    reason = None if counted else "no energy counter: it needs Volta or newer"
    uncertainty = COUNTER_UNCERTAINTY if counted else INTEGRATED_UNCERTAINTY
    return Part(name, source, uncertainty, _BOUNDARY, limit_w, UPDATE_PERIOD_S, reason)
