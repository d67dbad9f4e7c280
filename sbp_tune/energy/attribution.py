"""Records of a ledger to a bill: a pure function, folded record by record, so that a live meter runs the same code."""

from __future__ import annotations

import math
from collections.abc import Iterable

from sbp_tune.energy.account import Account
from sbp_tune.energy.bill import AttemptBill, Bill, Line, trial_bill
from sbp_tune.energy.node_attribution import NodeAttribution
from sbp_tune.energy.records import EpochMark, Gap, Inventory, LeaseClosed, LeaseOpened, Record, Snapshot
from sbp_tune.errors import SbpTuneError


class Attribution:
    """A bill in the making, over any number of nodes. Not thread-safe.

    Rules, for each interval between two readings of a device (see `split`): a GPU leased whole is billed whole, idle
    included, a shared one by rule and flagged; of the processor a trial gets the idle energy of the cores it
    reserved and the rest by CPU time; memory goes by GB. What no lease can be charged with is a line of its own.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, NodeAttribution] = {}
        self._node: NodeAttribution | None = None
        self._gaps: list[Gap] = []
        self._failure: SbpTuneError | None = None

    def add(self, record: Record) -> None:
        """The next record of a ledger; it is of the node whose Inventory came last.

        SbpTuneError for readings that cannot be true (a counter that went backwards, more power than the device's
        limit, work without energy), then and ever after: there is no bill with them.
        """
        if self._failure is not None:
            raise self._failure
        try:
            self._add(record)
        except SbpTuneError as error:
            self._failure = error
            raise

    def bill(self) -> Bill:
        """The bill so far; leases still open are billed up to the last snapshot."""
        if self._failure is not None:
            raise self._failure
        nodes = self._nodes.values()
        attempts: dict[str, list[AttemptBill]] = {}
        driver = Account()
        for node in nodes:
            now = node.last.time if node.last is not None else 0.0
            for state in node.leases.states.values():
                if state.opened.trial is None:
                    driver.add_all(state.account)
                else:
                    attempts.setdefault(state.opened.trial, []).append(state.line(node.inventory, now))
        warnings = [warning for node in nodes for warning in node.warnings()]
        trials = {}
        for trial, lines in attempts.items():
            trials[trial], more = trial_bill(lines)
            warnings += more
        return Bill(
            trials=trials,
            driver=_line([driver]),
            idle=_line(node.idle for node in nodes),
            other=_line(node.other for node in nodes),
            machine=_line(node.machine for node in nodes),
            seconds=math.fsum(node.seconds.value for node in nodes),
            not_measured=tuple(dict.fromkeys(name for node in nodes for name in node.not_measured)),
            gaps=tuple(self._gaps),
            warnings=tuple(warnings),
        )

    def open_leases(self) -> list[LeaseOpened]:
        """Leases that have not ended: those a restarted meter has to go on with."""
        return [lease for node in self._nodes.values() for lease in node.leases.living()]

    def attempt(self, lease: str) -> AttemptBill:
        """The bill of one lease so far; SbpTuneError for one that is not known."""
        if self._failure is not None:
            raise self._failure
        for node in self._nodes.values():
            if lease in node.leases.states:
                return node.leases.states[lease].line(node.inventory, node.last.time if node.last else 0.0)
        raise SbpTuneError(f"lease {lease} is not in the ledger")

    def _add(self, record: Record) -> None:
        if isinstance(record, Inventory):
            self._enter(record)
            return
        if self._node is None:
            raise SbpTuneError(f"a {record.kind} record before any inventory: of which node?")
        match record:
            case Snapshot():
                self._node.snapshot(record)
            case LeaseOpened():
                self._node.leases.open(record)
            case LeaseClosed():
                self._node.leases.close(record)
            case EpochMark():
                self._node.leases.mark(record)
            case Gap():
                self._gaps.append(record)
                self._node.gap()

    def _enter(self, inventory: Inventory) -> None:
        self._node = self._nodes.get(inventory.node)
        if self._node is None:
            self._node = self._nodes[inventory.node] = NodeAttribution(inventory)
        elif inventory != self._node.inventory:
            self._node.restart(inventory)


def attribute(records: Iterable[Record]) -> Bill:
    """The bill of a ledger's records, in their order; SbpTuneError as `Attribution.add`."""
    attribution = Attribution()
    for record in records:
        attribution.add(record)
    return attribution.bill()


def _line(accounts: Iterable[Account]) -> Line:
    total = Account()
    for account in accounts:
        total.add_all(account)
    return Line(total.components(), total.measured_kwh, total.modelled_kwh)
