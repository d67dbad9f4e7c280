"""The report of a study: one HTML file that opens from disk, without a network."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from analysis.bill import BillInfo, bill_info
from analysis.bill_tables import LINE_NAMES, energy, sentences
from analysis.conclusion import conclusion
from analysis.confirmed import read_confirmed
from analysis.confirmed_table import confirmed_table, note
from analysis.energy_bill import COMPONENTS, energy_bill_info
from analysis.figures import plot_energy_bill, plot_front
from analysis.page import figure_html, folded, page, paragraph, table
from analysis.pareto import trial_front
from analysis.text import escaped
from analysis.trials import devices, estimator, is_dense_control, metric, varying_config
from sbp_tune import __version__
from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.files import write_text_atomic, yaml_text
from sbp_tune.study.results import StudyResults
from sbp_tune.units import readable_energy, readable_metric

_METRIC_HEADERS = {
    "val_accuracy": "val. accuracy",
    "kwh": "energy",
    "kwh_measured_share": "measured",
    "co2_kg": "CO₂eq",
    "train_time_s": "time",
    "tflop": "TFLOP",
}


def write_report(study: StudyResults, output: Path) -> Path:
    """Writes the report of a study in any state to `output` (HTML, under 6 MB), and returns that path.

    The file is replaced in one step. Energies are in kWh, Wh or mWh and say what part was measured; what
    was not recorded is a dash. All text of the study is escaped.
    """
    sections = [
        f"<h1>{escaped(study.name)}</h1>",
        paragraph(" ".join(conclusion(study)), "conclusion"),
        "<h2>Accuracy against energy</h2>",
        figure_html(plot_front(study), height=520),
        *_front(study),
        *_confirmed(study),
        *_controls(study),
        *_energy_bill(study),
        *_failures(study),
        *_facts(study),
    ]
    write_text_atomic(output, page(f"{study.name} · sbp-tune", "\n".join(sections)))
    return Path(output)


def _front(study: StudyResults) -> list[str]:
    names = " and ".join(f"{name} ({direction})" for name, direction in study.objectives.items())
    note = f"Trials that no other complete trial beats in {names}, dense controls included."
    rows = trial_front(study).index
    shown = _trial_table(study, rows)
    confirmed = confirmed_table(read_confirmed(study)).set_index("trial")
    if len(confirmed):
        for place, name in enumerate(("test accuracy", "lead", "verdict"), start=2):
            shown.insert(place, f"confirmed {name}", shown["trial"].map(confirmed[name]).fillna("–"))
    body = table(shown) if len(rows) else paragraph("No trial has finished.")
    return ["<h2>Pareto front</h2>", paragraph(note, "note"), body]


def _confirmed(study: StudyResults) -> list[str]:
    points = read_confirmed(study)
    if points.empty:
        return []
    return ["<h2>Confirmed points</h2>", paragraph(note(points), "note"), table(confirmed_table(points))]


def _controls(study: StudyResults) -> list[str]:
    rows = study.trials.index[is_dense_control(study)]
    if not len(rows):
        return ["<h2>Dense controls</h2>", paragraph("No dense control has finished.")]
    ordered = metric(study, "kwh")[rows].sort_values().index
    note = "Dense training with fewer epochs or other settings of equal cost; a sparse method must beat their curve."
    return ["<h2>Dense controls</h2>", paragraph(note, "note"), table(_trial_table(study, ordered))]


def _trial_table(study: StudyResults, rows: pd.Index) -> pd.DataFrame:
    columns: dict[str, pd.Series] = {"trial": study.trials["trial"], "estimator": estimator(study)}
    for name, header in _METRIC_HEADERS.items():
        columns[header] = metric(study, name).map(lambda value, name=name: readable_metric(name, value))
    config = varying_config(study).loc[rows]
    return pd.concat([pd.DataFrame(columns).loc[rows], config.dropna(axis=1, how="all")], axis=1)


def _energy_bill(study: StudyResults) -> list[str]:
    bill = energy_bill_info(study)
    parts = bill.components.rename(index=COMPONENTS).reset_index()
    parts["share"] = (parts["kwh"] / bill.total["kwh"]).map(lambda share: f"{100 * share:.1f} %")
    parts["kwh"] = parts["kwh"].map(readable_energy)
    machines = _machines(study)
    note = "All trials, the stopped and failed ones included; not the idle time of the machines between trials"
    note += ", which is below." if machines else "."
    height = 130 + 45 * len(bill.groups)
    return [
        "<h2>Energy bill</h2>",
        paragraph(note, "note"),
        figure_html(plot_energy_bill(study), height),
        table(parts.rename(columns={"kwh": "energy"})) if len(parts) else "",
        table(_group_table(bill.groups, bill.total)),
        *machines,
    ]


def _machines(study: StudyResults) -> list[str]:
    """What the ledger says beyond the trials: overhead and waste; nothing where there is none."""
    try:
        info = bill_info(study)
    except InputError:  # no ledger
        return []
    except SbpTuneError as error:
        return [paragraph(line) for line in str(error).splitlines()]
    return [table(_line_table(info)), *(paragraph(line, "note") for line in sentences(info))]


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


def _failures(study: StudyResults) -> list[str]:
    failed = study.trials[study.trials["state"] == "failed"]
    if failed.empty:
        return []
    errors = failed["error"].fillna("no message") if "error" in failed else "no message"
    rows = pd.DataFrame({"trial": failed["trial"], "estimator": estimator(study)[failed.index], "error": errors})
    return ["<h2>Failed trials</h2>", table(rows)]


def _facts(study: StudyResults) -> list[str]:
    facts = {
        "study directory": study.path,
        "devices": ", ".join(devices(study)) or "not recorded",
        **study.versions,
        "report": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, sbp-tune {__version__}",
    }
    rows = pd.DataFrame({"fact": list(facts), "value": [str(value) for value in facts.values()]})
    return ["<h2>Study</h2>", table(rows), folded("Study file", yaml_text(study.study))]
