"""Accuracy, F1, ROC AUC, time, energy and CO2 by strategy: tables 4 to 6 of the feature-ranked paper."""

from __future__ import annotations

from typing import Any

from analysis.tables.arms import arms_info
from analysis.tables.cells import UNITS, amount, as_printed, clock, fixed, percent, unit_for
from analysis.tables.formats import Sheet
from analysis.tables.rows import TableInfo, row_text, runs_text, table_info
from analysis.trials import records
from sbp_tune.study.results import StudyResults


def strategies_table_info(*studies: StudyResults, published: bool = False) -> TableInfo:
    """Every arm of the studies; published: with the papers' rows."""
    return table_info(arms_info(*studies), "strategies", published)


def strategies_sheets(info: TableInfo) -> list[Sheet]:
    """A table for each network and data set, as in the paper."""
    rows, sheets = info.rows, []
    units = {
        name: UNITS[name][0] if info.units_are_printed else unit_for(UNITS[name], rows[name])
        for name in ("kwh", "co2_kg")
    }
    for (model, block), part in rows.groupby(["model", "block"], sort=False):
        arms = arm_texts(records(part))
        others = any(arms)
        header = [("Strategy",), *([("Arm",)] if others else [])]
        header += [("Accuracy (%)",), ("F1 (%)",), ("ROC AUC",), ("Training time (h:mm:ss)",)]
        header += [(f"Energy ({units['kwh'][0]})",), (f"CO₂ ({units['co2_kg'][0]})",), ("Runs",)]
        cells = [
            [
                row_text(row, info.several_splits),
                *([arm] if others else []),
                *_numbers(row, units),
                runs_text(row),
            ]
            for row, arm in zip(records(part), arms, strict=True)
        ]
        sheets.append(
            Sheet(f"{model} on {block}, by strategy" if block else f"{model}, by strategy", header, cells, 1 + others)
        )
    return with_notes(sheets, info, "By strategy")


def arm_texts(rows: list[dict[str, Any]]) -> list[str]:
    """Of each row the other factors, and the device where ours ran on several."""
    several = len({row["device"] for row in rows if not row["source"]}) > 1
    return [", ".join(filter(None, [row["others"], row["device"] if several else ""])) for row in rows]


def with_notes(sheets: list[Sheet], info: TableInfo, title: str) -> list[Sheet]:
    """The notes behind the last table; alone where there is none."""
    if not sheets:
        return [Sheet(title, [("Strategy",)], [], notes=info.notes)]
    return [*sheets[:-1], sheets[-1]._replace(notes=info.notes)]


def _numbers(row: dict[str, Any], units: dict[str, Any]) -> list[str]:
    if row["source"]:
        return [
            as_printed(row["printed"].get(name), units.get(name))
            for name in ("accuracy", "f1", "roc_auc", "train_time_s", "kwh", "co2_kg")
        ]
    return [
        percent(row["accuracy"], row["accuracy_se"]),
        percent(row["f1"], row["f1_se"]),
        fixed(row["roc_auc"], row["roc_auc_se"]),
        clock(row["train_time_s"], row["train_time_s_se"]),
        *(amount(row[name], row[f"{name}_se"], units[name]) for name in ("kwh", "co2_kg")),
    ]
