"""The energy bill on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.bill import COMPONENTS, BillInfo, LineRow
from analysis.text import one_line
from sbp_tune.units import readable_energy, readable_metric

LINE_NAMES = {
    "trials": "trials",
    "idle": "idle GPUs, cores and memory",
    "driver": "the search itself (driver)",
    "other": "other processes",
    "machine": "= machines",
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
    console.print(_lines(info))
    console.print(_components(info))
    if info.cross_check:
        console.print(_cross_check(info))
    for line in sentences(info):
        console.print(Text(line), soft_wrap=True)


def sentences(info: BillInfo) -> Iterator[str]:
    """What the tables do not hold, a line each: waste, savings, CO2, the check of the sum, and what is missing."""
    for what, kwh in (("Measured", info.machine.measured_kwh), ("Modelled", info.machine.modelled_kwh)):
        yield f"{what}, of the machines over {readable_metric('train_time_s', info.seconds)}: {energy(kwh)}."
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
        trials, machine = (readable_metric("co2_kg", kg) for kg in (info.co2.trials_kg, info.co2.machine_kg))
        yield (
            f"CO2eq: {trials} for the trials, {machine} for the machines ({info.co2.place}, "
            f"{1000 * info.co2.kg_per_kwh:.0f} g/kWh, PUE {info.co2.pue:g})."
        )
    yield from (f"Not measured, and in none of these numbers: {name}" for name in info.not_measured)
    yield from (f"Gap: {gap}" for gap in info.gaps)
    yield from (f"Warning: {one_line(problem)}" for problem in info.problems)


def energy(kwh: float | None) -> str:
    """In a readable unit; a dash where it is not known."""
    return readable_energy(math.nan if kwh is None else kwh)


def _trials(info: BillInfo) -> Table:
    table = Table(title=f"Energy of {one_line(info.study)}, by trial", title_justify="left")
    for name in ("trial", "estimator", "state", "attempts", "energy", "±", "wasted", "measured", "modelled"):
        table.add_column(name, justify="left" if name in ("estimator", "state") else "right", no_wrap=True)
    table.add_column("flags")
    for row in info.trials:
        share = "–" if row.uncertainty is None else f"{100 * row.uncertainty:.0f} %"
        numbers = [energy(value) for value in (row.kwh_wasted, row.measured_kwh, row.modelled_kwh)]
        texts = [row.trial, row.estimator, row.state, str(row.attempts), energy(row.kwh), share, *numbers]
        table.add_row(*(Text(one_line(text)) for text in (*texts, ", ".join(row.flags))))
    return table


def _lines(info: BillInfo) -> Table:
    table = Table(title="Where it went", title_justify="left")
    table.add_column("")
    for name in ("energy", *map(str.upper, COMPONENTS), "measured", "modelled"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in info.lines:
        table.add_row(*_line(row))
    table.add_section()
    table.add_row(*_line(info.machine))
    return table


def _line(row: LineRow) -> list[str]:
    parts = [energy(row.components.get(name)) for name in COMPONENTS]
    return [LINE_NAMES[row.line], energy(row.kwh), *parts, energy(row.measured_kwh), energy(row.modelled_kwh)]


def _components(info: BillInfo) -> Table:
    table = Table(title="How it is known", title_justify="left")
    for name in ("component", "source", "energy", "±"):
        table.add_column(name, justify="right" if name in ("energy", "±") else "left", no_wrap=True)
    for name, part in info.components.items():
        share = "–" if part.uncertainty is None else f"{100 * part.uncertainty:.0f} %"
        table.add_row(name.upper(), _SOURCES[part.source], energy(part.kwh), share)
    return table


def _cross_check(info: BillInfo) -> Table:
    table = Table(title="Beside CodeCarbon, while it ran on the driver's machine (never added)", title_justify="left")
    for name in ("component", "here", "source here", "CodeCarbon's model", "difference"):
        table.add_column(name, justify="left" if name in ("component", "source here") else "right", no_wrap=True)
    for row in info.cross_check:
        difference = "–" if row.difference is None else f"{100 * row.difference:+.1f} %"
        table.add_row(
            row.component.upper(), energy(row.kwh), _SOURCES[row.source], energy(row.codecarbon_kwh), difference
        )
    return table
