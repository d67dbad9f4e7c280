"""Accuracy, and energy with what is saved, by network and data set: the sparse-backpropagation paper's tables I, II."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from analysis.tables.arms import arms_info
from analysis.tables.cells import NOTHING, UNITS, amount, as_printed, percent, unit_for
from analysis.tables.formats import Sheet
from analysis.tables.rows import TableInfo, runs_text, table_info
from analysis.tables.strategies import others_text, with_notes
from analysis.trials import records
from sbp_tune.study.results import StudyResults

_SAVED = (
    "Energy saved: against the first dense row of the same network and data set, with the same seeds where both have "
    "them. Dense training of fewer epochs saves energy too: `sbp-tune report` compares at equal energy."
)


def accuracy_table_info(*studies: StudyResults, published: bool = False) -> TableInfo:
    """Every arm of the studies; published: with the papers' rows."""
    return table_info(arms_info(*studies), "accuracy", published)


def energy_table_info(*studies: StudyResults, published: bool = False) -> TableInfo:
    """Every arm of the studies, `saved` among its columns; published: with the papers' rows."""
    return table_info(arms_info(*studies), "energy", published, [_SAVED])


def accuracy_sheets(info: TableInfo) -> list[Sheet]:
    """One table: a row an arm, a column a data set."""

    def texts(row: dict[str, Any]) -> list[str]:
        if row["source"]:
            return [as_printed(row["printed"].get("accuracy"))]
        dagger = " †" if info.several_splits and row["split"] == "validation" else ""
        return [percent(row["accuracy"], row["accuracy_se"]) + dagger]

    return _sheets(info, "Accuracy (%) by network and data set", ("",), texts)


def energy_sheets(info: TableInfo) -> list[Sheet]:
    """One table: a row an arm, two columns a data set; under each sparse one what it saves."""
    units = {
        name: UNITS[key][0] if info.units_are_printed else unit_for(UNITS[key], info.rows[name])
        for name, key in (("kwh", "kj"), ("co2_kg", "co2_g"))
    }

    def texts(row: dict[str, Any]) -> list[str]:
        if row["source"]:
            return [as_printed(row["printed"].get(name), unit) for name, unit in units.items()]
        return [amount(row[name], row[f"{name}_se"], unit) for name, unit in units.items()]

    parts = (f"Energy ({units['kwh'][0]})", f"CO₂ ({units['co2_kg'][0]})")
    return _sheets(info, "Energy and CO₂ by network and data set", parts, texts, saved=True)


def _sheets(
    info: TableInfo,
    title: str,
    parts: tuple[str, ...],
    texts: Callable[[dict[str, Any]], list[str]],
    saved: bool = False,
) -> list[Sheet]:
    rows = info.rows.assign(arm=[others_text(row) for row in records(info.rows)])
    blocks = list(dict.fromkeys(rows["block"]))
    others = bool(rows["others"].any()) or bool(rows["device"][rows["source"] == ""].nunique() > 1)
    if not others:
        rows["arm"] = ""
    header: list[tuple[str, ...]] = [("Network",), ("Strategy",), *([("Arm",)] if others else [])]
    header += [(block, part) if part else (block,) for block in blocks for part in parts]
    header.append(("Runs",))
    cells, rules = [], []
    for model, network in rows.groupby("model", sort=False):
        rules.append(len(cells))
        for key, of_arm in network.groupby(["label", "arm", "data" if _is_folder(network) else "model"], sort=False):
            label, arm = key[0], key[1]
            of_block = {row["block"]: row for row in records(of_arm)}
            words = [str(model) if len(cells) == rules[-1] else "", label, *([arm] if others else [])]
            found = [texts(of_block[block]) if block in of_block else [NOTHING] * len(parts) for block in blocks]
            cells.append([*words, *(text for pair in found for text in pair), _runs(of_arm)])
            if saved and of_arm["saved"].notna().any():
                shares = [[_saved(of_block.get(block)), *[NOTHING] * (len(parts) - 1)] for block in blocks]
                words = ["", "  energy saved", *([""] if others else [])]
                cells.append([*words, *(text for pair in shares for text in pair), ""])
    return with_notes([Sheet(title, header, cells, 2 + others, tuple(rules[1:]))] if cells else [], info, title)


def _is_folder(rows: pd.DataFrame) -> bool:
    """Whether a paper's row on other data, the 1,000 classes, stands in the block of ours."""
    return bool((rows["data"] != rows["block"]).any())


def _runs(rows: pd.DataFrame) -> str:
    texts = list(dict.fromkeys(runs_text(row) for row in records(rows)))
    return texts[0] if len(texts) == 1 else ", ".join(texts)


def _saved(row: dict[str, Any] | None) -> str:
    if row is None or math.isnan(row["saved"]):
        return NOTHING
    printed = row["printed"].get("saved")
    return f"{printed.printed} %" if printed else f"{percent(row['saved'], row['saved_se'], 1)} %"
