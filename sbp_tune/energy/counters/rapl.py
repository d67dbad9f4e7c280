"""Energy of processors and of their memory from RAPL, by Linux's powercap files (Intel, and AMD since Zen).

Both vendors use the driver and the names `intel-rapl`. A zone is a folder `intel-rapl:0` with a `name`
(`package-0`, `package-0-die-1`, `psys`, ...); `dram`, `core` and `uncore` are zones inside a package's, and of
these only `dram` is energy that the package's counter leaves out (Intel SDM vol. 3, 15.10).
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from sbp_tune.energy.counters.part import CPU, DRAM, PSYS, Part, unmeasured
from sbp_tune.energy.counters.plausible import Plausible
from sbp_tune.errors import SbpTuneError

POWERCAP = Path("/sys/class/powercap")

# Within a few percent of an external meter from Haswell on (Khan et al., RAPL in Action, 2018); AMD's is itself
# a model of events (Schoene et al., 2021). One figure for both: an assumption.
RAPL_UNCERTAINTY = 0.1
RAPL_UPDATE_S = 0.001

# Above what any package draws (the largest sockets are sold with 500 W): more is a counter that was reset.
MOST_PACKAGE_W = 800.0
LATE_S = 1.0  # a busy machine reads a little later than it says

PERMISSION = (
    "the RAPL counters are readable by root only (the default since Linux 5.10, for security); to allow it until the "
    "next start: sudo chmod a+r /sys/class/powercap/*/energy_uj"
)

_ZONE = re.compile(r"(intel-rapl[a-z-]*):\d+(:\d+)?")
_DIE = re.compile(r"(package-\d+)-die-\d+")


def unwrapped(last: int, now: int, span: int) -> int:
    """Increase of a counter that starts again from 0 after `span`, given that it did so at most once."""
    return now - last if now >= last else now - last + span


@dataclass(frozen=True)
class Zone:
    """One powercap zone. control: the driver's interface; package: name of the package it is in, or its own."""

    path: Path
    control: str
    name: str
    package: str

    def energy_uj(self) -> int:
        """The raw counter, microjoules; OSError where it cannot be read."""
        return int((self.path / "energy_uj").read_text())

    def span_uj(self) -> int:
        """Where the counter starts again from 0, microjoules."""
        return int((self.path / "max_energy_range_uj").read_text())


class ZoneEnergy:
    """Joules of one zone since construction. Must be read before the counter can wrap twice (a minute will do)."""

    def __init__(self, zone: Zone, now: float) -> None:
        self._zone = zone
        self._span_uj = zone.span_uj()
        self._last_uj = zone.energy_uj()
        self._total_uj = 0
        self._time = now
        self._plausible = Plausible(f"RAPL {zone.name}", "energy counter", now, MOST_PACKAGE_W, LATE_S)

    def joules(self, now: float) -> float:
        """Energy so far, J; SbpTuneError if it cannot be read or cannot be true."""
        raw, seconds = self._read(), now - self._time
        if MOST_PACKAGE_W * seconds > self._span_uj / 1e6:
            raise SbpTuneError(
                f"RAPL {self._zone.name}: not read for {seconds:.0f} s, in which its counter may have wrapped twice"
            )
        self._total_uj += unwrapped(self._last_uj, raw, self._span_uj)
        self._last_uj, self._time = raw, now
        return self._plausible.check(self._total_uj / 1e6, now)

    def _read(self) -> int:
        try:
            return self._zone.energy_uj()
        except PermissionError as error:
            raise SbpTuneError(f"RAPL {self._zone.name}: the right to read it was withdrawn: {PERMISSION}") from error
        except (OSError, ValueError) as error:
            raise SbpTuneError(f"RAPL {self._zone.name}: can no longer be read: {error}") from error


class Rapl:
    """The `Counter` of all processor packages (`cpu`) and of the memory behind them (`dram`).

    Where the firmware also counts the whole board, that is a part `psys`, to be added to nothing. A part of the
    packages must not pass for all: one that cannot be read leaves `cpu` without source, one that has no dram
    zone leaves `dram` without.
    """

    sampled = False

    def __init__(self, now: float, root: Path = POWERCAP) -> None:
        self.parts: dict[str, Part] = {}
        self._zones: dict[str, list[ZoneEnergy]] = {}
        zones = find_zones(root)
        packages = [zone for zone in zones if zone.name.startswith("package")]
        with contextlib.suppress(OSError, ValueError):  # `_add` says so
            packages = _without_mirrors(packages)
        inside = {zone.package for zone in packages}
        memory = [zone for zone in zones if zone.name == "dram" and zone.package in inside]
        missing = "there is no RAPL: not an x86 processor, or a virtual machine" if not zones else "no such RAPL zone"
        names = ", ".join(sorted(inside))
        self._add(CPU, "processor packages", packages, now, missing)
        self._add(DRAM, "memory", memory, now, missing)
        if 0 < len(memory) < len(packages):
            self._leave_out(DRAM, "memory", f"not every one of {names} has a dram zone")
        if board := [zone for zone in zones if zone.name == PSYS]:
            self._add(PSYS, "whole board", board, now, missing)

    def sample(self, now: float) -> None:
        """Nothing: counters sum up by themselves."""

    def joules(self, part: str, now: float) -> float | None:
        """Energy of a part since construction, J; see `Counter`."""
        zones = self._zones.get(part)
        return None if zones is None else sum(zone.joules(now) for zone in zones)

    def _add(self, part: str, boundary: str, zones: list[Zone], now: float, missing: str) -> None:
        try:
            energies = [ZoneEnergy(zone, now) for zone in zones]
        except PermissionError:
            return self._leave_out(part, boundary, PERMISSION)
        except (OSError, ValueError) as error:
            return self._leave_out(part, boundary, f"RAPL cannot be read: {error}")
        if not zones:
            return self._leave_out(part, boundary, missing)
        if still := [zone.name for zone in zones if zone.energy_uj() == 0]:
            return self._leave_out(part, boundary, f"the RAPL counter of {', '.join(still)} stands at 0")
        name = f"RAPL {', '.join(zone.package if part == DRAM else zone.name for zone in zones)}"
        limit_w = MOST_PACKAGE_W * len(zones)
        self.parts[part] = Part(name, "counter", RAPL_UNCERTAINTY, boundary, limit_w, RAPL_UPDATE_S)
        self._zones[part] = energies
        return None

    def _leave_out(self, part: str, boundary: str, reason: str) -> None:
        self._zones.pop(part, None)
        self.parts[part] = unmeasured("RAPL", boundary, reason)


def find_zones(root: Path = POWERCAP) -> list[Zone]:
    """All zones below a powercap folder, each once, in order of package: where the processor's own registers
    (MSR) and memory-mapped ones (MMIO) show the same counter, only the former.
    """
    folders = {path.name: path for path in [*root.glob("intel-rapl*/"), *root.glob("intel-rapl*/intel-rapl*/")]}
    found: dict[tuple[str, str], Zone] = {}
    for folder in sorted(folders, key=_numbers):
        match = _ZONE.fullmatch(folder)
        if match is None:
            continue  # the interface itself, intel-rapl
        name = _name(folders[folder])
        package = name
        if match[2] and (parent := folders.get(folder.rpartition(":")[0])):
            package = _name(parent)
        found.setdefault((package, name), Zone(folders[folder], match[1], name, package))
    return list(found.values())


def _name(folder: Path) -> str:
    try:
        return (folder / "name").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _numbers(folder: str) -> tuple[str, list[int]]:
    control, *numbers = folder.split(":")
    return control, [int(number) for number in numbers if number.isdigit()]


def _without_mirrors(packages: list[Zone]) -> list[Zone]:
    """Packages without dies that show the counter of another die of the same package, as some of AMD's do.

    Two counters that are equal to within what one of them gains while the other is read are one: a coincidence
    has odds of 1 in 10^7.
    """
    kept: list[Zone] = []
    for zone in packages:
        siblings = [other for other in kept if _same_package(zone, other)]
        if not any(_mirrors(zone, other) for other in siblings):
            kept.append(zone)
    return kept


def _same_package(zone: Zone, other: Zone) -> bool:
    one, two = _DIE.fullmatch(zone.name), _DIE.fullmatch(other.name)
    return one is not None and two is not None and one[1] == two[1]


def _mirrors(zone: Zone, other: Zone) -> bool:
    before, between, after = other.energy_uj(), zone.energy_uj(), other.energy_uj()
    span = other.span_uj()
    return between > 0 and unwrapped(before, between, span) <= unwrapped(before, after, span)
