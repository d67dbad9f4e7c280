"""Accuracy, and energy with what is saved, by network and data set: the sparse-backpropagation paper's tables I, II."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from analysis.tables.arms import arms_info
from analysis.tables.cells import NOTHING, UNITS, amount, as_printed, percent, unit_for
from analysis.tables.formats import Sheet
from analysis.tables.rows import TableInfo, runs_text, table_info
from analysis.tables.strategies import arm_texts, with_notes
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
    rows = records(info.rows)
    blocks = list(dict.fromkeys(row["block"] for row in rows))
    texts_of_arms = arm_texts(rows)
    others = any(texts_of_arms)
    header: list[tuple[str, ...]] = [("Network",), ("Strategy",), *([("Arm",)] if others else [])]
    header += [(block, part) if part else (block,) for block in blocks for part in parts]
    header.append(("Runs",))
    networks: dict[str, dict[tuple[str, ...], dict[str, dict[str, Any]]]] = {}
    for row, text in zip(
        rows, texts_of_arms, strict=True
    ):  # a paper's row on other data, the 1,000 classes, stands in a line of its own
        key = (row["label"], text, row["data"] if row["data"] != row["block"] else "")
        networks.setdefault(row["model"], {}).setdefault(key, {})[row["block"]] = row
    cells: list[list[str]] = []
    rules: list[int] = []
    for model, arms in networks.items():
        rules.append(len(cells))
        for (label, arm, _), of_block in arms.items():
            words = [model if len(cells) == rules[-1] else "", label, *([arm] if others else [])]
            found = [texts(of_block[block]) if block in of_block else [NOTHING] * len(parts) for block in blocks]
            runs = ", ".join(dict.fromkeys(runs_text(row) for row in of_block.values()))
            cells.append([*words, *(text for pair in found for text in pair), runs])
            if saved and any(not math.isnan(row["saved"]) for row in of_block.values()):
                shares = [[_saved(of_block.get(block)), *[NOTHING] * (len(parts) - 1)] for block in blocks]
                words = ["", "  energy saved", *([""] if others else [])]
                cells.append([*words, *(text for pair in shares for text in pair), ""])
    return with_notes([Sheet(title, header, cells, 2 + others, tuple(rules[1:]))] if cells else [], info, title)


def _saved(row: dict[str, Any] | None) -> str:
    if row is None or math.isnan(row["saved"]):
        return NOTHING
    printed = row["printed"].get("saved")
    return f"{printed.printed} %" if printed else f"{percent(row['saved'], row['saved_se'], 1)} %"
