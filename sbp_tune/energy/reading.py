"""What a meter says: kWh by component, each with its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

JOULES_PER_KWH = 3.6e6

Source = Literal["counter", "integrated", "model", "none"]


@dataclass(frozen=True)
class Component:
    """Energy of one part of the machine: kWh, and the relative standard uncertainty of that number.

    Source `counter`: a hardware energy counter; `integrated`: power readings, summed over time; `model`:
    a formula; `none`: nothing could be read, and kwh and uncertainty are None (never 0).
    """

    kwh: float | None
    source: Source
    uncertainty: float | None


@dataclass(frozen=True)
class Reading:
    """Energy since the start of a meter.

    components: by name, `gpu` (absent in a run without GPU), `cpu` and `ram` (absent where the GPU's number holds
    them, as on a Jetson that measures the whole module); seconds: wall time;
    cpu_seconds: of the whole process tree; co2_kg: kg CO2eq, PUE included, None without a country;
    gpu_busy_seconds: mean over the GPUs of the time in which a kernel ran, None where that cannot be read.
    """

    components: dict[str, Component]
    seconds: float
    cpu_seconds: float
    co2_kg: float | None
    gpu_busy_seconds: float | None = None

    @property
    def kwh(self) -> float:
        """Sum of the components that have a number; a component of source `none` is not in it."""
        return sum(part.kwh for part in self.components.values() if part.kwh is not None)

    @property
    def kwh_gpu(self) -> float | None:
        """None in a run without GPU, and where the GPU cannot be measured."""
        return self._kwh("gpu")

    @property
    def kwh_cpu(self) -> float | None:
        """Processor, kWh."""
        return self._kwh("cpu")

    @property
    def kwh_ram(self) -> float | None:
        """Memory, kWh."""
        return self._kwh("ram")

    @property
    def measured_share(self) -> float:
        """Part of `kwh` that comes from hardware readings, 0 to 1; the rest is modelled."""
        parts = self.components.values()
        measured = sum(part.kwh for part in parts if part.kwh and part.source in ("counter", "integrated"))
        return measured / self.kwh if self.kwh else 0.0

    @property
    def mean_power_w(self) -> float:
        """`kwh` over `seconds`, W; 0 before any time has passed."""
        return self.kwh * JOULES_PER_KWH / self.seconds if self.seconds else 0.0

    def _kwh(self, name: str) -> float | None:
        part = self.components.get(name)
        return part.kwh if part else None
