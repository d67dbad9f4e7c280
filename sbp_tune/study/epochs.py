"""epochs.jsonl: every result of every attempt as it comes in, so that no crash loses a finished epoch.

Ray keeps its own result files in a staging folder and copies them to the study only now and then.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from sbp_tune.files import append_json_line

if TYPE_CHECKING:
    import pandas as pd

_FILE = "epochs.jsonl"
_BLOCK = 2**24  # bytes read at a time
_SCALARS = (int, float, str, bool, type(None))


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Appends a line to a study's log, of the row's plain values, and waits until it is on the disk."""
    append_json_line(path / _FILE, plain_values(row), durable=True)


def plain_values(row: dict[str, Any]) -> dict[str, Any]:
    """What of a result is a number, a text or nothing."""
    return {name: value for name, value in row.items() if isinstance(value, _SCALARS)}


def read_log(path: Path) -> list[dict[str, Any]]:
    """All rows of all attempts, in the order in which they came. A line cut by a crash is skipped."""
    return [row for lines in _blocks(path) for row in _parsed(lines)]


def read_rows(path: Path, trial_ids: Collection[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Rows of each attempt, or of these alone, by Ray's trial id, in the order in which they came."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for lines in _blocks(path):
        for row in _parsed(lines):
            trial_id = str(row.get("trial_id"))
            if trial_ids is None or trial_id in trial_ids:
                rows.setdefault(trial_id, []).append(row)
    return rows


def read_columns(path: Path, numbers: Sequence[str], texts: Sequence[str]) -> pd.DataFrame:
    """The log as a table: trial_id, epoch, columns of numbers and of text, in the order in which rows came.

    What a row does not have, or has of another kind, is NaN or None.
    """
    schema = pa.schema(
        [("trial_id", pa.string()), ("epoch", pa.int64())]
        + [(name, pa.float64()) for name in numbers]
        + [(name, pa.string()) for name in texts]
    )
    blocks = [_columns(lines, schema) for lines in _blocks(path)]
    table = pa.concat_tables(blocks) if blocks else schema.empty_table()
    table = table.filter(pc.is_valid(table["epoch"]))
    for name in ("trial_id", *texts):  # of few values each, and a string a row would be most of the memory
        place = table.column_names.index(name)
        table = table.set_column(place, name, pc.dictionary_encode(table[name]))
    return table.to_pandas(split_blocks=True, self_destruct=True)


def _blocks(path: Path) -> Iterator[list[bytes]]:
    """The lines of the log, so many at a time."""
    file = path / _FILE
    if file.is_file():
        with file.open("rb") as log:
            while lines := log.readlines(_BLOCK):
                yield lines


def _parsed(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line.decode(errors="replace"))
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("epoch"), int):
            yield row


def _columns(lines: list[bytes], schema: pa.Schema) -> pa.Table:
    block = b"".join(lines)
    try:
        return pyarrow.json.read_json(
            io.BytesIO(block),
            pyarrow.json.ReadOptions(block_size=len(block) + 1),
            pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        ).select(schema.names)
    except pa.ArrowInvalid:  # a line that a crash cut, or a value of another kind
        rows = list(_parsed(lines))
        return pa.table(
            [pa.array([_as(field.type, row.get(field.name)) for row in rows], field.type) for field in schema], schema
        )


def _as(kind: pa.DataType, value: Any) -> Any:
    if kind == pa.string():
        return None if value is None else str(value)
    if not isinstance(value, int | float):
        return None
    return int(value) if kind == pa.int64() else float(value)


def merged_rows(rows: dict[str, list[dict[str, Any]]], trial_ids: list[str]) -> list[dict[str, Any]]:
    """Rows of a trial over its attempts, one per epoch in order; an epoch run twice counts as it ran last."""
    by_epoch = {row["epoch"]: row for trial_id in trial_ids for row in rows.get(trial_id, [])}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]
