"""The whole energy bill of a study by its ledger, as plain data: trials, what no trial can be charged with, CO2."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from analysis.trials import estimator
from sbp_tune.config import EnergyConfig
from sbp_tune.energy.account import combine
from sbp_tune.energy.bill import Bill, Line, TrialBill
from sbp_tune.energy.carbon import co2_kg, intensity
from sbp_tune.energy.reading import Component
from sbp_tune.energy.records import Gap
from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.study.cross_check import read_cross_checks
from sbp_tune.study.ledger import StudyBill, study_bill
from sbp_tune.study.results import StudyResults, confirmation_path, load_study
from sbp_tune.study.window import machine_kwh

COMPONENTS = ("gpu", "cpu", "ram")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class TrialRow:
    """One trial, all attempts together.

    kwh: None where a component has no source; measured_kwh and modelled_kwh hold what is known also then; uncertainty:
    relative standard uncertainty of kwh, errors of different components being independent; flags: why its number
    should not be compared with others.
    """

    trial: str
    estimator: str
    state: str
    attempts: int
    seconds: float
    kwh: float | None
    kwh_wasted: float | None
    measured_kwh: float
    modelled_kwh: float
    uncertainty: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True)
class LineRow:
    """One line of the bill, kWh: trials, idle, driver, other or machine; components without a source are None."""

    line: str
    kwh: float
    measured_kwh: float
    modelled_kwh: float
    components: dict[str, float | None]


@dataclass(frozen=True)
class Co2:
    """kg CO2eq, `pue` included; place: as the study file names it; kg_per_kwh: of that place, before PUE."""

    place: str
    kg_per_kwh: float
    pue: float
    trials_kg: float
    machine_kg: float


@dataclass(frozen=True)
class Saved:
    """An estimate: what stopped trials would have used, had each trained to its planned end, less what they used.

    trials: those it is of; unknown: stopped trials that finished no epoch, of which nothing can be said.
    """

    kwh: float
    trials: int
    unknown: int


@dataclass(frozen=True)
class CrossCheckRow:
    """One component of the driver's machine while CodeCarbon ran: our ledger's kWh, and CodeCarbon's.

    difference: CodeCarbon's over ours, less 1; None where either is missing.
    """

    component: str
    source: str
    kwh: float | None
    codecarbon_kwh: float | None
    difference: float | None


@dataclass(frozen=True)
class BillInfo:
    """The bill. `lines` sum to `machine`, measured and modelled kWh apart.

    components: of the machine, by name; conserved: how far the sum of the lines is from the machine, relative;
    wasted_kwh: of all trials, by attempts that were not continued from; seconds: metered, summed over nodes; co2: None
    without a place; problems: damage and warnings, a line each; confirmation: the bill of the study's confirmation,
    which is in none of the numbers here.
    """

    study: str
    trials: tuple[TrialRow, ...]
    components: dict[str, Component]
    lines: tuple[LineRow, ...]
    machine: LineRow
    conserved: float
    wasted_kwh: float
    saved: Saved | None
    co2: Co2 | None
    seconds: float
    gaps: tuple[str, ...]
    not_measured: tuple[str, ...]
    problems: tuple[str, ...]
    cross_check: tuple[CrossCheckRow, ...]
    confirmation: BillInfo | None = None


def bill_info(study: StudyResults) -> BillInfo:
    """The bill of a study in any state.

    InputError for a study that has no ledger; SbpTuneError, a line for each reason, where its readings cannot be true.
    """
    billed = study_bill(study.path)
    if billed is None:
        raise InputError(f"{study.path}: no energy ledger: nothing metered this study")
    if billed.bill is None:
        raise SbpTuneError("\n".join(f"{study.path}: no bill: {problem}" for problem in billed.problems))
    return _info(study, billed, billed.bill)


def bill_json(info: BillInfo) -> str:
    """The bill as JSON; energies in kWh, None as null."""
    return json.dumps(dataclasses.asdict(info), indent=2, allow_nan=False)


def _info(study: StudyResults, billed: StudyBill, bill: Bill) -> BillInfo:
    trials = list(bill.trials.values())
    lines = (
        _line("trials", trials),
        _line("idle", [bill.idle]),
        _line("driver", [bill.driver]),
        _line("other", [bill.other]),
    )
    machine = _line("machine", [bill.machine])
    total = math.fsum(line.kwh for line in lines)
    checks, problems = _cross_check(study)
    return BillInfo(
        study=study.name,
        trials=_trial_rows(study, bill),
        components=bill.machine.components,
        lines=lines,
        machine=machine,
        conserved=abs(total - machine.kwh) / machine.kwh if machine.kwh else 0.0,
        wasted_kwh=math.fsum(trial.kwh_wasted for trial in trials if trial.kwh_wasted is not None),
        saved=_saved(study, bill),
        co2=_co2(study, lines[0].kwh, machine.kwh),
        seconds=bill.seconds,
        gaps=tuple(_gap(gap) for gap in bill.gaps),
        not_measured=bill.not_measured,
        problems=(*billed.problems, *problems),
        cross_check=checks,
        confirmation=_confirmation(study),
    )


def _confirmation(study: StudyResults) -> BillInfo | None:
    path = confirmation_path(study.path)
    if not (path / "study.db").is_file() or study_bill(path) is None:
        return None
    return bill_info(load_study(path))


def _line(name: str, parts: Iterable[Line]) -> LineRow:
    parts = list(parts)
    components = {}
    for component in COMPONENTS:
        found = [part.components[component] for part in parts if component in part.components]
        if found:
            components[component] = combine(found).kwh
    measured = math.fsum(part.measured_kwh for part in parts)
    modelled = math.fsum(part.modelled_kwh for part in parts)
    return LineRow(name, measured + modelled, measured, modelled, components)


def _trial_rows(study: StudyResults, bill: Bill) -> tuple[TrialRow, ...]:
    """Trials of the study in their order, those without a line in the ledger too; then any that only that knows."""
    names = [str(number) for number in study.trials["trial"]]
    heads = dict(zip(names, zip(estimator(study), study.trials["state"], strict=True), strict=True))
    attempts = dict(zip(names, study.trials.get("attempts", pd.Series(0, index=study.trials.index)), strict=True))
    rows = []
    for name in dict.fromkeys([*names, *bill.trials]):
        kind, state = heads.get(name, (UNKNOWN, UNKNOWN))
        trial = bill.trials.get(name)
        if trial is None:
            nothing = (0.0, None, None, 0.0, 0.0, None, ("not in the ledger",))
            rows.append(TrialRow(name, str(kind), str(state), int(attempts[name]), *nothing))
            continue
        numbers = (trial.seconds, trial.kwh, trial.kwh_wasted, trial.measured_kwh, trial.modelled_kwh)
        rows.append(
            TrialRow(name, str(kind), str(state), len(trial.attempts), *numbers, _uncertainty(trial), _flags(trial))
        )
    return tuple(rows)


def _uncertainty(trial: TrialBill) -> float | None:
    if not trial.kwh:
        return None
    parts = trial.components.values()
    return math.hypot(*(part.kwh * part.uncertainty for part in parts if part.kwh and part.uncertainty)) / trial.kwh


def _flags(trial: TrialBill) -> tuple[str, ...]:
    flags = {
        "shared GPU": trial.shared,
        "too short to rank": trial.too_short_to_rank,
        f"coverage {trial.coverage:.2f}": not trial.well_covered,
    }
    unknown = [f"no source for {name}" for name, part in trial.components.items() if part.source == "none"]
    return (*(flag for flag, holds in flags.items() if holds), *unknown)


def _saved(study: StudyResults, bill: Bill) -> Saved | None:
    """None where no trial was stopped."""
    stopped = study.trials[study.trials["state"] == "stopped"]
    if stopped.empty:
        return None
    saved = [_saved_by(study, int(number), bill.trials.get(str(number))) for number in stopped["trial"]]
    known = [kwh for kwh in saved if kwh is not None]
    return Saved(math.fsum(known), len(known), len(saved) - len(known))


def _saved_by(study: StudyResults, number: int, trial: TrialBill | None) -> float | None:
    """Planned epochs at the mean kWh of those seen, waste apart, less what was spent on them and begun of the next."""
    planned = study.config_of(number).get("epochs")
    if trial is None or trial.kwh is None or trial.kwh_wasted is None or not trial.epochs or not planned:
        return None
    last, until = max(trial.epochs.items())
    if until is None:
        return None
    spent = trial.kwh - trial.kwh_wasted
    return max(0.0, planned * (until - trial.kwh_wasted) / last - spent)


def _co2(study: StudyResults, trials_kwh: float, machine_kwh: float) -> Co2 | None:
    energy = EnergyConfig.model_validate(study.study.get("energy") or {})
    if not energy.has_place:
        return None
    place = ", ".join(name for name in energy.place.values() if name is not None)
    trials, machine = (
        co2_kg(
            kwh, energy.country, energy.pue, region=energy.region, cloud=energy.cloud, cloud_region=energy.cloud_region
        )
        for kwh in (trials_kwh, machine_kwh)
    )
    return Co2(place, intensity(**energy.place), energy.pue, trials, machine)


def _gap(gap: Gap) -> str:
    start = f"{datetime.fromtimestamp(gap.start, UTC):%Y-%m-%d %H:%M:%S}"
    return f"from {start} UTC for {gap.end - gap.start:.0f} s: {gap.reason}"


def _cross_check(study: StudyResults) -> tuple[tuple[CrossCheckRow, ...], tuple[str, ...]]:
    runs = read_cross_checks(study.path)
    problems = tuple(f"CodeCarbon beside the ledger: {run.error}" for run in runs if run.error)
    runs = [run for run in runs if not run.error]
    if not runs:
        return (), problems
    windows = [machine_kwh(study.path, run.node, run.start, run.end) for run in runs]
    rows = []
    for name in COMPONENTS:
        theirs = _total([run.kwh.get(name) for run in runs])
        ours = _total([None if window is None or name not in window else window[name].kwh for window in windows])
        if theirs is None and ours is None:
            continue
        source = combine(window[name] for window in windows if window and name in window).source
        difference = theirs / ours - 1 if theirs is not None and ours else None
        rows.append(CrossCheckRow(name, source, ours, theirs, difference))
    return tuple(rows), problems


def _total(values: list[Any]) -> float | None:
    return None if None in values else math.fsum(values)
