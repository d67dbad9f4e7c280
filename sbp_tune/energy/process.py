"""CPU seconds and memory of a process and everything it started."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sbp_tune.energy.process_readers import ProcessReader, ProcessTimes, system_reader
from sbp_tune.errors import SbpTuneError


@dataclass(frozen=True)
class _Member:
    times: ProcessTimes
    owed: float  # CPU seconds of vanished children, as last seen, that are not yet in `times.reaped`


class ProcessTree:
    """A process and, if wanted, its descendants. Not thread-safe.

    A child that exits moves its CPU time to the parent that reaps it, so that children too short to be seen
    count in full. Time that no parent takes over (the parent died first, or ignores its children) stays as
    last seen; a process once seen is followed even when it is no longer a descendant. What is lost is at most
    the time between the last reading and the exit of such an orphan.

    age_s: how long the process must have run already; one that began later has been given its number since.
    """

    def __init__(
        self, pid: int, reader: ProcessReader | None = None, *, descendants: bool = True, age_s: float = 0.0
    ) -> None:
        self._reader = reader or system_reader()
        times = self._reader.times(pid)
        if times is None or (age_s > 0 and self._reader.age(times.started) < age_s):
            raise SbpTuneError(f"process {pid} does not exist or cannot be read")
        self._pid, self._started, self._descendants = pid, times.started, descendants
        self._members = {pid: _Member(times, 0.0)}  # parents before their children
        self._lost = 0.0

    def cpu_seconds(self) -> float:
        """CPU seconds that the tree has used since each process began, s; never decreases."""
        if not self._descendants:
            return self._own_seconds()
        seen: dict[int, ProcessTimes] = {}
        for pid, member in self._members.items():
            self._walk(pid, seen, member.times.started)
        owed = self._settle(seen)
        self._members = {pid: _Member(times, owed.get(pid, 0.0)) for pid, times in seen.items()}
        used = sum(member.times.own + member.times.reaped + member.owed for member in self._members.values())
        return used + self._lost

    def _own_seconds(self) -> float:
        times, member = self._reader.times(self._pid), self._members[self._pid]
        if times is not None and times.started == self._started:
            self._members[self._pid] = member = _Member(times, 0.0)
        return member.times.own

    def alive(self) -> bool:
        """Whether the root still runs, or is stopped (SIGSTOP); not when it has ended, even if nobody has reaped it,
        nor when its pid is another process's by now.
        """
        times = self._reader.times(self._pid)
        return times is not None and times.started == self._started and not times.ended

    def memory_gb(self) -> float:
        """Resident memory of the processes found by the last `cpu_seconds`, GB (1e9 bytes).

        A single process counts its resident set (RSS). Several count their proportional set (PSS), since forked
        workers share most pages; it takes the kernel about 3 ms per GB to find.
        """
        size = self._reader.resident if len(self._members) == 1 else self._reader.proportional
        return sum(size(pid) for pid in self._members) / 1e9

    def _walk(self, pid: int, seen: dict[int, ProcessTimes], started: float | None = None) -> None:
        """Adds a process, then its descendants: read in this order, a child reaped meanwhile is not seen twice."""
        if pid in seen:
            return
        times = self._reader.times(pid)
        if times is None or started not in (None, times.started):
            return
        seen[pid] = times
        for child in self._reader.children(pid):
            self._walk(child, seen)

    def _settle(self, seen: dict[int, ProcessTimes]) -> dict[int, float]:
        """What each living process is still owed, after those that vanished passed theirs to their parents."""
        owed: dict[int, float] = {}
        passed: defaultdict[int, float] = defaultdict(float)
        for pid, member in reversed(self._members.items()):  # children first
            last, now = member.times, seen.get(pid)
            claim = member.owed + passed[pid]
            if now is not None and now.started == last.started:
                owed[pid] = max(0.0, claim - (now.reaped - last.reaped))
            elif last.parent in self._members:
                passed[last.parent] += last.own + last.reaped + claim
            else:
                self._lost += last.own + last.reaped + claim
        return owed
