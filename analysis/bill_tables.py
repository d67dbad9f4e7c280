"""The energy bill on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.bill import COMPONENTS, BillInfo, LineRow
from analysis.text import one_line
from sbp_tune.units import readable_energy, readable_metric

LINE_NAMES = {
    "trials": "trials",
    "idle": "idle hardware",
    "driver": "search driver",
    "other": "other processes",
    "machine": "= machines",
}
_SHORT = {"shared GPU": "shared", "too short to rank": "short"}
_MEANINGS = {
    "shared": "of a GPU held with others, divided by rule",
    "short": "under 20 s an attempt: too short to rank",
}
_SOURCES = {
    "counter": "measured (energy counter)",
    "integrated": "measured (power summed up)",
    "model": "modelled",
    "none": "not measured",
}


def print_bill(info: BillInfo, console: Console) -> None:
    """Prints `bill_info`."""
    console.print(_trials(info))
    flags = {_SHORT.get(flag) for row in info.trials for flag in row.flags}
    for flag, meaning in _MEANINGS.items():
        if flag in flags:
            console.print(Text(f"{flag}: {meaning}"))
    console.print(_lines(info))
    console.print(_components(info))
    if info.cross_check:
        console.print(_cross_check(info))
    for line in sentences(info):
        console.print(Text(line), soft_wrap=True)


def sentences(info: BillInfo) -> Iterator[str]:
    """What the tables do not hold, a line each: waste, savings, CO2, the check of the sum, and what is missing."""
    machine = info.machine
    yield (
        f"Of the machines' energy in {readable_metric('train_time_s', info.seconds)} of metering, "
        f"{energy(machine.measured_kwh)} is measured and {energy(machine.modelled_kwh)} modelled."
    )
    yield (
        f"The lines sum to the machines to {info.conserved:.0e}."
        if info.conserved > 1e-9
        else "The lines sum to the machines."
    )
    yield f"Wasted, in attempts from which no later one continued: {energy(info.wasted_kwh)}."
    if info.saved is not None:
        unknown = f"; of {info.saved.unknown} more, without an epoch, nothing can be said" if info.saved.unknown else ""
        yield (
            f"Saved by early stopping, an estimate: {energy(info.saved.kwh)} ({info.saved.trials} stopped trials, had "
            f"their other planned epochs cost what those seen did{unknown})."
        )
    if info.co2 is None:
        yield "No CO2: the study names no place (energy.country)."
    else:
        trials_kg, machine_kg = (readable_metric("co2_kg", kg) for kg in (info.co2.trials_kg, info.co2.machine_kg))
        yield (
            f"CO2eq: {trials_kg} for the trials, {machine_kg} for the machines ({info.co2.place}, "
            f"{1000 * info.co2.kg_per_kwh:.0f} g/kWh, PUE {info.co2.pue:g})."
        )
    if info.confirmation is not None:
        runs, machines = info.confirmation.lines[0], info.confirmation.machine
        yield (
            f"Confirmation, beside the search and in none of these numbers nor its budget: {energy(runs.kwh)} for "
            f"{len(info.confirmation.trials)} runs, {energy(machines.kwh)} for the machines."
        )
    yield from (f"Not measured, and in none of these numbers: {name}" for name in info.not_measured)
    yield from (f"Gap: {gap}" for gap in info.gaps)
    yield from (f"Warning: {one_line(problem)}" for problem in info.problems)


def energy(kwh: float | None) -> str:
    """In a readable unit; a dash where it is not known."""
    return readable_energy(math.nan if kwh is None else kwh)


def _table(title: str, left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    """Numbers to the right and never cut, words folded where the terminal is narrow."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _trials(info: BillInfo) -> Table:
    title = f"Energy of {one_line(info.study)}, by trial (what is not measured is modelled)"
    flagged = any(row.flags for row in info.trials)
    table = _table(title, ("trial",), ("runs", "energy", "±", "measured", "wasted"))
    for name in ("estimator", "state", *(["flags"] if flagged else [])):
        table.add_column(name, overflow="fold")
    for row in info.trials:
        known = row.measured_kwh + row.modelled_kwh
        shares = [row.uncertainty, row.measured_kwh / known if known else None]
        share, measured = ("–" if value is None else f"{100 * value:.0f} %" for value in shares)
        numbers = [str(row.attempts), energy(row.kwh), share, measured, energy(row.kwh_wasted)]
        flags = [", ".join(_SHORT.get(flag, flag) for flag in row.flags)] if flagged else []
        table.add_row(*(Text(one_line(text)) for text in (row.trial, *numbers, row.estimator, row.state, *flags)))
    return table


def _lines(info: BillInfo) -> Table:
    numbers = ("energy", *map(str.upper, COMPONENTS), "measured", "modelled")
    table = _table("Where it went", ("",), numbers)
    for row in info.lines:
        table.add_row(*_line(row))
    table.add_section()
    table.add_row(*_line(info.machine))
    return table


def _line(row: LineRow) -> list[str]:
    parts = [energy(row.components.get(name)) for name in COMPONENTS]
    return [LINE_NAMES[row.line], energy(row.kwh), *parts, energy(row.measured_kwh), energy(row.modelled_kwh)]


def _components(info: BillInfo) -> Table:
    table = _table("How it is known", ("component", "source"), ("energy", "±"))
    for name, part in info.components.items():
        share = "–" if part.uncertainty is None else f"{100 * part.uncertainty:.0f} %"
        table.add_row(name.upper(), _SOURCES[part.source], energy(part.kwh), share)
    return table


def _cross_check(info: BillInfo) -> Table:
    title = "Beside CodeCarbon, on the driver's machine; never added"
    table = _table(title, ("component", "source here"), ("here", "CodeCarbon's model", "difference"))
    for check in info.cross_check:
        difference = "–" if check.difference is None else f"{100 * check.difference:+.1f} %"
        table.add_row(
            check.component.upper(), _SOURCES[check.source], energy(check.kwh), energy(check.codecarbon_kwh), difference
        )
    return table
