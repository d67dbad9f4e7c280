"""Accuracy and energy by keep fraction: the ablation of the sparse-backpropagation paper (section V-D)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.tables.arms import arms_info
from analysis.tables.cells import NOTHING, UNITS, amount, as_printed, percent, unit_for
from analysis.tables.formats import Sheet
from analysis.tables.rows import TableInfo, row_text, runs_text, table_info
from analysis.tables.strategies import arm_texts, with_notes
from analysis.text import one_line
from analysis.trials import records, varying_config
from sbp_tune.study.results import StudyResults


def ablation_table_info(*studies: StudyResults, published: bool = False) -> TableInfo:
    """Arms of a constant keep fraction, each fraction for itself, and the dense ones; published: with the papers'."""
    arms = arms_info(*studies, every_p=True)
    arms = arms._replace(rows=arms.rows[arms.rows["p"].notna()].reset_index(drop=True))
    return table_info(arms, "ablation", published, _also_varied(studies))


def ablation_sheets(info: TableInfo) -> list[Sheet]:
    """A table for each network and data set on which more than one fraction ran, the largest first."""
    unit = UNITS["kj"][0] if info.units_are_printed else unit_for(UNITS["kj"], info.rows["kwh"])
    sheets = []
    for (model, block), part in info.rows.groupby(["model", "block"], sort=False):
        if part["p"].nunique() < 2:
            continue
        part = part.assign(dense=part["estimator"] == "dense", place=range(len(part)))
        part = part.sort_values(["dense", "p", "place"], ascending=[False, False, True], kind="stable")
        arms = arm_texts(records(part))
        others = any(arms)
        header = [("Strategy",), *([("Arm",)] if others else []), ("p",), ("Accuracy (%)",), (f"Energy ({unit[0]})",)]
        header += [("Energy saved (%)",), ("Runs",)]
        cells = [
            [
                row_text(row, info.several_splits).replace(f", p = {row['p']:.4g}", ""),  # has a column of its own
                *([arm] if others else []),
                f"{row['p']:.4g}",
                *_numbers(row, unit),
                runs_text(row),
            ]
            for row, arm in zip(records(part), arms, strict=True)
        ]
        title = f"{model} on {block}, by keep fraction p" if block else f"{model}, by keep fraction p"
        sheets.append(Sheet(title, header, cells, 1 + others))
    if not sheets and not info.rows.empty:
        info = info._replace(notes=(*info.notes, "No network ran with several constant keep fractions."))
    return with_notes(sheets, info, "By keep fraction p")


def _numbers(row: dict[str, Any], unit: tuple[str, float]) -> list[str]:
    if row["source"]:
        units = {"kwh": unit}
        return [as_printed(row["printed"].get(name), units.get(name)) for name in ("accuracy", "kwh", "saved")]
    saved = NOTHING if math.isnan(row["saved"]) else percent(row["saved"], row["saved_se"], 1)
    return [percent(row["accuracy"], row["accuracy_se"]), amount(row["kwh"], row["kwh_se"], unit), saved]


def _also_varied(studies: Sequence[StudyResults]) -> list[str]:
    """A sentence where more than p differs between the rows."""
    told = ("sparsity.p0", "sparsity.schedule", "seed", "model.name", "data.name")
    keys: dict[str, None] = {}
    for study in studies:
        varying = varying_config(study)
        constant = pd.Series(True, index=varying.index)
        if "sparsity.schedule" in varying:
            constant = varying["sparsity.schedule"].isin(["constant", None]) | varying["sparsity.schedule"].isna()
        within = varying[constant]
        for key in within:
            if key not in told and len({str(value) for value in within[key].dropna()}) > 1:
                keys[one_line(key)] = None
    return [f"The rows differ in more than p: {', '.join(keys)}."] if keys else []
