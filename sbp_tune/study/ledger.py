"""The energy ledger of a study: where it is, and the bill that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sbp_tune.energy.attribution import attribute
from sbp_tune.energy.bill import Bill
from sbp_tune.energy.invariants import check
from sbp_tune.energy.ledger import Damage, read_ledger
from sbp_tune.errors import SbpTuneError
from sbp_tune.study.working import remote_of


class StudyBill(NamedTuple):
    """bill: None where the readings cannot be true, and problems say why, beside what is damaged or missing."""

    bill: Bill | None
    problems: tuple[str, ...]


def ledger_folder(path: Path) -> Path:
    """Where the ledgers of a study's nodes are read."""
    return path / "energy"


def metering_place(path: Path) -> str:
    """Where the meters of a study's nodes write: a folder that all nodes share, or a URI of object storage."""
    remote = remote_of(path)
    return str(ledger_folder(path).resolve()) if remote is None else remote.child(ledger_folder(path).name).uri


def study_bill(path: Path) -> StudyBill | None:
    """The bill of a study in any state, trials by number; None for one that has no ledger."""
    folder = ledger_folder(path)
    damage: list[Damage] = []
    try:
        records = list(read_ledger(folder, damage))  # once: the meters of a running study go on writing
        if not records:
            return None
        bill = attribute(records)
        check(bill, records)
    except SbpTuneError as error:
        return StudyBill(None, (str(error), *map(str, damage)))
    return StudyBill(bill, (*map(str, damage), *bill.warnings))
