"""A small copy of a study that others can read: what its tables are made of, without checkpoints and machine names."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.files import read_yaml
from sbp_tune.study.epochs import read_log
from sbp_tune.study.ledger import ledger_folder
from sbp_tune.study.lock import is_in_use
from sbp_tune.study.results import confirmation_path
from sbp_tune.study.storage import check_directory
from sbp_tune.study.storage_url import FILES

# What Ray adds to each result: where and when it came in, and counts that our own columns have too.
_RAYS = (
    *("hostname", "node_ip", "pid", "date", "timestamp", "training_iteration", "time_this_iter_s", "time_total_s"),
    *("time_since_restore", "iterations_since_restore"),
)


def pack(path: Path, output: Path) -> Path:
    """Copies of a study, its confirmation too, all that `load_study` and the energy bill read; returns `output`.

    Left out are Ray's folder with checkpoints and logs, tables and reports that are made again, and the names,
    addresses and processes of the machines that ran an epoch; paths in study.yaml and in error messages stay.
    InputError where `path` is no study, `output` is there already, or the trials are in a database; SbpTuneError
    while the study runs.
    """
    check_directory(path)
    if output.exists():
        raise InputError(f"{output}: is there already")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as folder:
        made = Path(folder) / output.name
        _copy(path, made)
        if confirmation_path(path).is_dir():
            _copy(confirmation_path(path), confirmation_path(made))
        made.rename(output)
    return output


def _copy(path: Path, output: Path) -> None:
    if is_in_use(path):
        raise SbpTuneError(f"{path}: another process runs this study at present")
    storage = str((read_yaml(path / "study.yaml").get("search") or {}).get("storage") or "sqlite")
    if storage not in FILES:
        raise InputError(f"{path}: its trials are in a database ({storage}), which a copy of the folder would not hold")
    output.mkdir()
    shutil.copyfile(path / "study.yaml", output / "study.yaml")
    if storage == "sqlite":
        with closing(sqlite3.connect(path / FILES[storage])) as database:  # whole also beside a journal of its own
            database.execute("VACUUM INTO ?", (str(output / FILES[storage]),))
    else:
        shutil.copyfile(path / FILES[storage], output / FILES[storage])
    rows = [{name: value for name, value in row.items() if name not in _RAYS} for row in read_log(path)]
    (output / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for file in path.glob("confirmed.*"):
        shutil.copyfile(file, output / file.name)
    for file in ledger_folder(path).glob("[!.]*"):
        ledger_folder(output).mkdir(exist_ok=True)
        shutil.copyfile(file, ledger_folder(output) / file.name)
