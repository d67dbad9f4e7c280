"""Energy of a Jetson module from its INA3221 power monitors, by Linux's hwmon files, summed up at 10 Hz.

NVML lists a Jetson's GPU, but answers NotSupported to every question about energy. Which rails a board has, and
what hangs on them, is in no file: the table below says it, and a board that is not in it is not guessed at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sbp_tune.energy.counters.part import CPU, DRAM, Part, unmeasured
from sbp_tune.energy.counters.plausible import Plausible
from sbp_tune.energy.integral import Integral
from sbp_tune.errors import SbpTuneError

HWMON = Path("/sys/class/hwmon")
SAMPLE_PERIOD_S = 0.1

# A step of the monitor is 40 uV over a shunt of 2 to 5 mOhm, up to 0.4 W at 20 V (TI's data sheet, Linux's device
# trees), and the load changes within 0.1 s: an assumption.
RAIL_UNCERTAINTY = 0.15

GPU = "gpu"
PartName = Literal["gpu", "cpu", "dram"]


@dataclass(frozen=True)
class Board:
    """A family of modules. rails: what is summed up for each part; left_out: rails that are in another one.

    limit_w: the most that the module may draw in its data sheet's highest mode, W. A board whose `gpu` is the
    whole module has no other part.
    """

    name: str
    limit_w: float
    rails: dict[PartName, tuple[str, ...]]
    boundary: dict[PartName, str]
    left_out: tuple[str, ...] = ()

    def recognises(self, labels: set[str]) -> bool:
        """Whether a board with these rails is of the family; memory is on some kernels not labelled."""
        return all(set(rails) <= labels for part, rails in self.rails.items() if part != DRAM)


BOARDS = (
    Board(
        "Jetson AGX Orin",
        75.0,
        {"gpu": ("VDD_GPU_SOC",), "cpu": ("VDD_CPU_CV",), "dram": ("VDDQ_VDD2_1V8AO",)},
        {"gpu": "GPU and SoC", "cpu": "processor and CV accelerators", "dram": "memory and always-on 1.8 V"},
        # ti,summation-disable in tegra234-p3701.dtsi: the 5 V rail, of which the memory's is a branch. There is no
        # VDD_IN: input and output outside the three rails are not measured.
        left_out=("VIN_SYS_5V0",),
    ),
    Board(
        "Jetson AGX Xavier",
        75.0,
        {"gpu": ("GPU", "SOC"), "cpu": ("CPU", "CV", "SYS5V"), "dram": ("VDDRQ",)},
        {"gpu": "GPU and SoC", "cpu": "processor, CV accelerators and 5 V system rail", "dram": "memory"},
    ),
    Board(  # Orin NX, Orin Nano, Xavier NX
        "Jetson with one input rail",
        50.0,
        {"gpu": ("VDD_IN",)},
        {"gpu": "whole module: GPU, processor and memory"},
        left_out=("VDD_CPU_GPU_CV", "VDD_SOC"),  # branches of VDD_IN; the former is not the processor alone
    ),
)


@dataclass(frozen=True)
class Rail:
    """One channel of a monitor: millivolts and milliamperes, each in a file."""

    label: str
    volts: Path
    amperes: Path

    def watts(self) -> float:
        """Power now, W; OSError or ValueError where it cannot be read."""
        return int(self.volts.read_text()) * int(self.amperes.read_text()) / 1e6


def find_rails(root: Path = HWMON) -> dict[str, Rail]:
    """The labelled channels of all INA3221 of a machine, by label; empty on what is no Jetson."""
    rails = {}
    for name in sorted(root.glob("hwmon*/name")):
        if _text(name) != "ina3221":
            continue
        for label in sorted(name.parent.glob("in[123]_label")):
            number = label.name[2]
            enabled = _text(label.with_name(f"in{number}_enable")) != "0"
            if enabled and (text := _text(label)) not in ("", "NC"):
                rails[text] = Rail(text, label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input"))
    return rails


class Jetson:
    """The `Counter` of a Jetson module; without parts where there is none.

    gpu: the name under which its GPU is known, NVML's UUID where NVML lists it; board: None for no Jetson;
    reason: why a machine with such monitors is not measured, else None.
    """

    def __init__(self, now: float, root: Path = HWMON, gpu: str = GPU) -> None:
        self.parts: dict[str, Part] = {}
        self.reason: str | None = None
        self._sums: dict[str, tuple[list[Rail], Integral, Plausible]] = {}
        self._failure: SbpTuneError | None = None
        rails = find_rails(root)
        self.board = next((board for board in BOARDS if board.recognises(set(rails))), None) if rails else None
        if self.board is None:
            self.reason = f"the power rails {', '.join(sorted(rails))} are of no known board" if rails else None
        else:
            try:
                self._start(self.board, rails, gpu, now)
            except (OSError, ValueError) as error:
                self.reason = f"the power rails cannot be read: {error}"
                self.parts = {gpu: unmeasured(self.board.name, "whole module", self.reason)}
        self.sampled = bool(self._sums)

    def sample(self, now: float) -> None:
        """Reads all rails once."""
        try:
            for rails, integral, _ in self._sums.values():
                integral.add(now, sum(rail.watts() for rail in rails))
        except (OSError, ValueError) as error:
            self._failure = self._failure or SbpTuneError(f"Jetson: a power rail can no longer be read: {error}")

    def joules(self, part: str, now: float) -> float | None:
        """Energy of a part since construction, J; see `Counter`."""
        if self.parts[part].source == "none":
            return None
        if self._failure is not None:
            raise self._failure
        _, integral, plausible = self._sums[part]
        return plausible.check(integral.until(now), now)

    def _start(self, board: Board, rails: dict[str, Rail], gpu: str, now: float) -> None:
        for part, labels in board.rails.items():
            name = gpu if part == GPU else part
            if not set(labels) <= set(rails):
                continue
            chosen = [rails[label] for label in labels]
            integral = Integral(now, sum(rail.watts() for rail in chosen))
            device = f"{board.name} ({', '.join(labels)})"
            plausible = Plausible(device, "power reading", now, board.limit_w, SAMPLE_PERIOD_S)
            self._sums[name] = (chosen, integral, plausible)
            self.parts[name] = Part(
                device, "integrated", RAIL_UNCERTAINTY, board.boundary[part], board.limit_w, SAMPLE_PERIOD_S
            )
        if set(board.rails) == {GPU}:
            reason = "in the module's input rail, which is counted with the GPU"
            for inside in (CPU, DRAM):
                self.parts[inside] = Part(board.name, "none", None, inside, reason=reason, included_in=gpu)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
