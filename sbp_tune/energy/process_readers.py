"""Where CPU time and memory of single processes come from: /proc on Linux, psutil elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class ProcessTimes:
    """CPU seconds of one process: its own, and those of the children it has reaped (and theirs)."""

    started: float  # with the pid, names a process for good: pids are used again
    parent: int
    own: float
    reaped: float
    ended: bool = False  # a zombie: it waits for its parent to take its times


class ProcessReader(Protocol):
    """Reads any process; a process that is gone or not readable has no times, no children and no memory."""

    def times(self, pid: int) -> ProcessTimes | None:
        """CPU seconds so far."""

    def age(self, started: float) -> float:
        """Seconds since a process with `started` in its times began."""

    def children(self, pid: int) -> list[int]:
        """Pids of the direct children."""

    def resident(self, pid: int) -> int:
        """Resident memory, bytes; pages shared with other processes count in full."""

    def proportional(self, pid: int) -> int:
        """Resident memory, bytes; a page shared by n processes counts 1/n where the system tells."""


class ProcFs:
    """Linux: one small file per number, some 5 us each."""

    def __init__(self) -> None:
        self._tick = os.sysconf("SC_CLK_TCK")
        self._page = os.sysconf("SC_PAGE_SIZE")

    @staticmethod
    def available() -> bool:
        """Whether the kernel lists children (CONFIG_PROC_CHILDREN; off in some sandboxes)."""
        own = Path(f"/proc/self/task/{threading.get_native_id()}/children")
        return sys.platform == "linux" and own.exists()

    def times(self, pid: int) -> ProcessTimes | None:
        text = _read(f"/proc/{pid}/stat")
        if not text:
            return None
        field = text[text.rindex(b")") + 2 :].split()  # the name before it may hold blanks and brackets
        utime, stime, cutime, cstime = (int(ticks) / self._tick for ticks in field[11:15])
        ended = field[0] in (b"Z", b"X", b"x")
        return ProcessTimes(float(field[19]), int(field[1]), utime + stime, cutime + cstime, ended)

    def age(self, started: float) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / self._tick

    def children(self, pid: int) -> list[int]:
        try:
            threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  (twice as fast as Path.iterdir)
        except OSError:
            return []
        return [int(child) for tid in threads for child in _read(f"/proc/{pid}/task/{tid}/children").split()]

    def resident(self, pid: int) -> int:
        field = _read(f"/proc/{pid}/statm").split()
        return int(field[1]) * self._page if field else 0

    def proportional(self, pid: int) -> int:
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
        return self.resident(pid)  # another user's process, or a kernel before 4.14


class Psutil:
    """Everything else. Slower, and reaped children are known on no system but Linux."""

    def times(self, pid: int) -> ProcessTimes | None:
        import psutil

        try:
            process = psutil.Process(pid)
            cpu = process.cpu_times()
            reaped = getattr(cpu, "children_user", 0.0) + getattr(cpu, "children_system", 0.0)
            ended = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
            return ProcessTimes(process.create_time(), process.ppid(), cpu.user + cpu.system, reaped, ended)
        except psutil.Error:
            return None

    def age(self, started: float) -> float:
        return time.time() - started

    def children(self, pid: int) -> list[int]:
        import psutil

        try:
            return [child.pid for child in psutil.Process(pid).children()]
        except psutil.Error:
            return []

    def resident(self, pid: int) -> int:
        import psutil

        try:
            return psutil.Process(pid).memory_info().rss
        except psutil.Error:
            return 0

    proportional = resident


def system_reader() -> ProcessReader:
    """The best reader this system has."""
    return ProcFs() if ProcFs.available() else Psutil()


def _read(path: str) -> bytes:
    """A whole small file; empty if it is gone. A third of the time of open(): a meter reads dozens a second."""
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            return os.read(file, 1 << 16)
        finally:
            os.close(file)
    except OSError:
        return b""
