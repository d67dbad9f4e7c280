"""What a node used between two times, by its ledger: to compare with another tool that ran for a part of a search."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from sbp_tune.energy.attribution import Attribution
from sbp_tune.energy.ledger import read_ledger
from sbp_tune.energy.reading import Component
from sbp_tune.energy.records import Snapshot
from sbp_tune.study.ledger import ledger_folder


def machine_kwh(path: Path, node: str, start: float, end: float) -> dict[str, Component] | None:
    """Energy of a whole node from `start` to `end`, Unix time, by component; straight lines between snapshots.

    None where the ledger does not reach over that time. SbpTuneError for readings that cannot be true.
    """
    records = list(read_ledger(ledger_folder(path), damage=[], node=node))
    times = [record.wall for record in records if isinstance(record, Snapshot)]
    first, last = _around(times, start), _around(times, end)
    if first is None or last is None:
        return None
    attribution = Attribution()
    at: dict[float, dict[str, Component]] = {}
    for record in records:
        attribution.add(record)
        if isinstance(record, Snapshot) and record.wall in (*first, *last):
            at[record.wall] = attribution.bill().machine.components

    def until(time: float, edge: tuple[float, float], name: str) -> float:
        before, after = (at[when][name].kwh or 0.0 if name in at[when] else 0.0 for when in edge)
        return before + (after - before) * (time - edge[0]) / (edge[1] - edge[0] or 1.0)

    return {
        name: part
        if part.kwh is None
        else Component(until(end, last, name) - until(start, first, name), part.source, part.uncertainty)
        for name, part in at[last[1]].items()
    }


def _around(times: list[float], time: float) -> tuple[float, float] | None:
    """The snapshots before and after a time."""
    return next(((before, after) for before, after in pairwise(times) if before <= time <= after), None)
