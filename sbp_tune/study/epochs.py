"""epochs.jsonl: every result of every attempt as it comes in, so that no crash loses a finished epoch.

Ray keeps its own result files in a staging folder and copies them to the study only now and then.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_FILE = "epochs.jsonl"
_SCALARS = (int, float, str, bool, type(None))


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Appends a line to a study's log, of the row's plain values, and waits until it is on the disk."""
    plain = {name: value for name, value in row.items() if isinstance(value, _SCALARS)}
    with (path / _FILE).open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a crash cut the line before
                file.write(b"\n")
        file.write(json.dumps(plain).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_log(path: Path) -> list[dict[str, Any]]:
    """All rows of all attempts, in the order in which they came. A line cut by a crash is skipped."""
    file = path / _FILE
    if not file.is_file():
        return []
    rows = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("epoch"), int):
            rows.append(row)
    return rows


def read_rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of each attempt by Ray's trial id, in the order in which they came."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in read_log(path):
        rows.setdefault(str(row.get("trial_id")), []).append(row)
    return rows


def merged_rows(rows: dict[str, list[dict[str, Any]]], trial_ids: list[str]) -> list[dict[str, Any]]:
    """Rows of a trial over its attempts, one per epoch in order; an epoch run twice counts as it ran last."""
    by_epoch = {row["epoch"]: row for trial_id in trial_ids for row in rows.get(trial_id, [])}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]
