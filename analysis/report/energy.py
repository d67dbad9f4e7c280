"""The section on energy: what the trials used, what was used beside them, how busy the machines were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from analysis.bill import BillInfo, bill_info
from analysis.bill_tables import LINE_NAMES, energy, sentences
from analysis.energy_bill import COMPONENTS, energy_bill_info
from analysis.figures import machine_bill_info, plot_energy_bill, usage_info
from analysis.figures.machine_bill import billed_info, draw_machine_bill
from analysis.figures.usage import draw_usage
from analysis.findings import machine_bill_finding, usage_finding
from analysis.page import paragraph, table
from analysis.report.gallery import Gallery
from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.study.results import StudyResults
from sbp_tune.units import readable_energy, readable_metric

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def ledger_bill(study: StudyResults) -> tuple[BillInfo | None, list[str]]:
    """The bill by the study's ledger, and what is wrong with it; neither where there is no ledger."""
    try:
        return bill_info(study), []
    except InputError:  # no ledger
        return None, []
    except SbpTuneError as error:
        return None, str(error).splitlines()


def energy_section(study: StudyResults, bill: BillInfo | None, problems: list[str], gallery: Gallery) -> list[str]:
    """Figures and tables of the bill; problems: why there is no bill by a ledger that is there."""
    found = energy_bill_info(study)
    parts = found.components.rename(index=COMPONENTS).reset_index()
    parts["share"] = (parts["kwh"] / found.total["kwh"]).map(lambda share: f"{100 * share:.1f} %")
    parts["kwh"] = parts["kwh"].map(readable_energy)
    machines = _machines(bill, problems)
    text = "All trials, the stopped and failed ones included; not the idle time of the machines between trials"
    text += ", which is below." if machines else "."

    def everything() -> tuple[Figure, str]:
        info = machine_bill_info(study) if bill is None else billed_info(bill)
        return draw_machine_bill(info), machine_bill_finding(info)

    def usage() -> tuple[Figure, str]:
        info = usage_info(study)
        return draw_usage(info), usage_finding(info)

    return [
        paragraph(text, "note"),
        *gallery.show("Energy of the trials", lambda: (plot_energy_bill(study), _groups_finding(found.groups))),
        table(parts.rename(columns={"kwh": "energy"})) if len(parts) else "",
        table(_group_table(found.groups, found.total)),
        *gallery.show("Where all the energy went", everything),
        *machines,
        *gallery.show("Use of the machines", usage),
    ]


def _groups_finding(groups: pd.DataFrame) -> str:
    """Which part of the trials' energy went into trials that nobody will take."""
    total = groups["kwh"].sum()
    if not total > 0:
        return ""
    shares = (100 * groups["kwh"] / total).dropna().sort_values(ascending=False)
    texts = [f"{str(name)[0].lower()}{str(name)[1:]} {share:.0f} %" for name, share in shares.items()]
    return f"The trials' {readable_energy(total)} by what became of them: {', '.join(texts)}."


def _machines(bill: BillInfo | None, problems: list[str]) -> list[str]:
    """What the ledger says beyond the trials: overhead and waste; nothing where there is none."""
    if bill is None:
        return [paragraph(line, "problem") for line in problems]
    return [table(_line_table(bill)), *(paragraph(line, "note") for line in sentences(bill))]


def _line_table(info: BillInfo) -> pd.DataFrame:
    rows = [*info.lines, info.machine]
    numbers: dict[str, list[float | None]] = {
        "energy": [row.kwh for row in rows],
        **{part.upper(): [row.components.get(part) for row in rows] for part in info.components},
        "measured": [row.measured_kwh for row in rows],
        "modelled": [row.modelled_kwh for row in rows],
    }
    columns = {name: [energy(value) for value in values] for name, values in numbers.items()}
    return pd.DataFrame({"where it went": [LINE_NAMES[row.line] for row in rows], **columns})


def _group_table(groups: pd.DataFrame, total: pd.Series) -> pd.DataFrame:
    rows = pd.concat([groups, total.to_frame("All trials").T])
    return pd.DataFrame(
        {
            "group": rows.index,
            "trials": rows["trials"].astype(int).array,
            "energy": rows["kwh"].map(readable_energy).array,
            "measured": [readable_metric("kwh_measured_share", share) for share in rows["measured_kwh"] / rows["kwh"]],
            "CO₂eq": [readable_metric("co2_kg", kg) for kg in rows["co2_kg"]],
            "trials without a record": rows["unrecorded"].astype(int).array,
        }
    )
