"""Which leases a node has, and which of them were open when."""

from __future__ import annotations

import dataclasses
from collections.abc import Container

from sbp_tune.energy.lease_state import LeaseState, earlier_close
from sbp_tune.energy.records import EpochMark, LeaseClosed, LeaseOpened, Snapshot
from sbp_tune.errors import SbpTuneError


class LeaseBook:
    """The leases of one node, in the order of its ledger.

    Events between two snapshots may come in any order, and again. One that comes after a later snapshot takes effect
    from there on: what has been billed stays billed.
    """

    def __init__(self) -> None:
        self.states: dict[str, LeaseState] = {}
        self._open: dict[str, LeaseState] = {}
        self._since_boot: dict[str, LeaseState] = {}
        self._billed = float("-inf")  # up to this time
        self._early_ends: dict[str, LeaseClosed] = {}  # of leases that are not known yet
        self._early_marks: dict[str, list[EpochMark]] = {}
        self._seen: set[str] = set()

    def open(self, record: LeaseOpened) -> None:
        """SbpTuneError if the lease is known, as another one."""
        state = self.states.get(record.lease)
        if state is None:
            state = LeaseState(record, closed=self._early_ends.pop(record.lease, None))
            self.states[record.lease] = self._open[record.lease] = self._since_boot[record.lease] = state
            for mark in self._early_marks.pop(record.lease, []):
                self.mark(mark)
            return
        if dataclasses.replace(record, time=state.opened.time) != state.opened:
            raise SbpTuneError(f"lease {record.lease} was opened twice, as {state.opened} and as {record}")
        state.opened = min(record, state.opened, key=lambda opened: opened.time)
        if state.lost is not None and state.closed is None and record.lease in self._since_boot:
            state.lost = None  # was given up, but lives
            self._open[record.lease] = state

    def close(self, record: LeaseClosed) -> None:
        """Of several ends the earliest counts."""
        state = self.states.get(record.lease)
        if state is None:
            self._early_ends[record.lease] = earlier_close(self._early_ends.get(record.lease), record)
            return
        if state.closed is None and record.time < self._billed:
            record = dataclasses.replace(record, time=self._billed)
        state.closed = earlier_close(state.closed, record)

    def mark(self, record: EpochMark) -> None:
        """Of several ends of the same epoch the last counts: a call that was repeated was answered with that one."""
        state = self.states.get(record.lease)
        if state is None:
            self._early_marks.setdefault(record.lease, []).append(record)
        elif record.epoch not in state.marks or record.time > state.marks[record.epoch].time:
            state.marks[record.epoch] = record
            state.joules.pop(record.epoch, None)

    def billed(self, now: Snapshot) -> None:
        """All up to a snapshot is done: what ended before holds nothing any more."""
        self._billed = now.time
        self._seen.update(now.leases)
        self._open = {lease: state for lease, state in self._open.items() if state.ended > now.time}

    def lose(self, alive: Container[str] = ()) -> None:
        """After a gap: whatever is open, but not alive, ended with the last snapshot before."""
        for lease, state in self._open.items():
            if lease not in alive and state.closed is None:
                state.lost = max(state.opened.time, self._billed)

    def reboot(self) -> None:
        """The clock begins again, and no lease is left."""
        self.lose()
        self._open, self._since_boot, self._billed = {}, {}, float("-inf")

    def held(self, since: Snapshot, now: Snapshot) -> dict[str, tuple[LeaseState, float]]:
        """Leases that were open between two snapshots, each with seconds; `since` may be older than the last."""
        leases = self._open if since.time == self._billed else self._since_boot
        found = {lease: (state, state.overlap(since.time, now.time)) for lease, state in leases.items()}
        return {lease: (state, seconds) for lease, (state, seconds) in found.items() if seconds > 0}

    def marked(self, until: float) -> list[tuple[LeaseState, float]]:
        """Leases in which an epoch has ended of which the energy is not known yet, each with its joules so far."""
        return [(state, state.account.joules) for state in self._open.values() if state.unmarked(until)]

    def living(self) -> list[LeaseOpened]:
        """Those that have not ended."""
        return [state.opened for state in self._open.values() if state.closed is None]

    def strangers(self) -> list[str]:
        """Leases that something was written about, but not that they were opened."""
        return sorted((self._seen | self._early_ends.keys() | self._early_marks.keys()) - self.states.keys())
