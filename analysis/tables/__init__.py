"""The tables of both papers from any study: an `_info` function gives the numbers, a `_sheets` function the cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from analysis.tables.ablation import ablation_sheets, ablation_table_info
from analysis.tables.by_model import accuracy_sheets, accuracy_table_info, energy_sheets, energy_table_info
from analysis.tables.data_sets import data_sheets, data_table_info
from analysis.tables.formats import FORMATS, Sheet, as_csv
from analysis.tables.rows import TableInfo
from analysis.tables.strategies import strategies_sheets, strategies_table_info
from sbp_tune.errors import InputError
from sbp_tune.study.results import StudyResults


class TableKind(NamedTuple):
    """How one table is made: its numbers of some studies, and its cells of the numbers."""

    info: Callable[..., TableInfo]
    sheets: Callable[[TableInfo], list[Sheet]]


TABLES: dict[str, TableKind] = {
    "data": TableKind(data_table_info, data_sheets),
    "strategies": TableKind(strategies_table_info, strategies_sheets),
    "accuracy": TableKind(accuracy_table_info, accuracy_sheets),
    "energy": TableKind(energy_table_info, energy_sheets),
    "ablation": TableKind(ablation_table_info, ablation_sheets),
}
ALL_FORMATS = (*FORMATS, "csv")

__all__ = [
    "ALL_FORMATS",
    "TABLES",
    "Sheet",
    "TableInfo",
    "ablation_table_info",
    "accuracy_table_info",
    "data_table_info",
    "energy_table_info",
    "print_tables",
    "strategies_table_info",
]

_INTERNAL = ["config", "printed", "block", "label"]


def print_tables(
    *studies: StudyResults,
    table: str | None = None,
    format: str = "text",
    published: bool = False,
    width: int = 1000,
) -> str:
    """One table, or all of them, as text of a format; width: of the terminal, for `text`.

    InputError for an unknown table or format, or for all tables as CSV, which is one table a file.
    """
    problems = []
    if table is not None and table not in TABLES:
        problems.append(f"--table: found {table!r}; allowed: {', '.join(TABLES)}")
    if format not in ALL_FORMATS:
        problems.append(f"--format: found {format!r}; allowed: {', '.join(ALL_FORMATS)}")
    if not problems and format == "csv" and table is None:
        problems.append(f"--format csv: needs --table, one table a file: {', '.join(TABLES)}")
    if problems:
        raise InputError(problems)
    printed = []
    for name in [table] if table is not None else TABLES:
        kind = TABLES[name]
        info = kind.info(*studies, published=published)
        if format == "csv":
            return as_csv(info.rows.drop(columns=_INTERNAL, errors="ignore"))
        sheets = kind.sheets(info)
        if format == "text":
            from analysis.tables.formats import as_text

            printed += [as_text(sheet, width) for sheet in sheets]
        else:
            printed += [FORMATS[format](sheet) for sheet in sheets]
    return "\n\n".join(printed)
