"""What the whole machine does, whoever does it: busy core seconds, and memory in use."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


class Host:
    """Linux's /proc, elsewhere psutil. cpus: logical cores; ram_gb: installed memory, GB (1e9 bytes)."""

    def __init__(self, proc: Path = PROC) -> None:
        self._stat, self._meminfo = proc / "stat", proc / "meminfo"
        self._linux = self._stat.exists() and self._meminfo.exists()
        self._tick = os.sysconf("SC_CLK_TCK") if self._linux else 1
        self.cpus = self._count_cpus()
        self.ram_gb = self._memory_gb()[0]

    def busy_s(self) -> float:
        """Core seconds since boot in which the machine worked.

        Work is user, nice, system, irq and softirq (man 5 proc). Steal is not ours: another virtual machine had
        the core. Guest time is in user and nice already. Sums over processes may differ by a tick.
        """
        if not self._linux:
            import psutil

            times = psutil.cpu_times()
            return sum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq"))
        user, nice, system, _idle, _iowait, irq, softirq = self._first_line()[1:8]
        return sum(int(ticks) for ticks in (user, nice, system, irq, softirq)) / self._tick

    def used_gb(self) -> float:
        """Memory that is not available to a new process, GB."""
        total, available = self._memory_gb()
        return total - available

    def _count_cpus(self) -> int:
        if not self._linux:
            return os.cpu_count() or 1
        lines = self._stat.read_text(encoding="ascii").splitlines()
        return sum(line.startswith("cpu") for line in lines) - 1  # the first is their sum

    def _first_line(self) -> list[str]:
        with self._stat.open(encoding="ascii") as file:
            return file.readline().split()

    def _memory_gb(self) -> tuple[float, float]:
        """Installed and available memory, GB."""
        if not self._linux:
            import psutil

            memory = psutil.virtual_memory()
            return memory.total / 1e9, memory.available / 1e9
        fields = dict(line.split(":", 1) for line in self._meminfo.read_text(encoding="ascii").splitlines())
        total, available = (int(fields[name].split()[0]) * 1024 / 1e9 for name in ("MemTotal", "MemAvailable"))
        return total, available
