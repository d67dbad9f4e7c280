"""Finished studies as one replay table, which `--simulate` plays: see `sbp_tune.replay_table`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sbp_tune import __version__
from sbp_tune.errors import InputError
from sbp_tune.files import write_atomic
from sbp_tune.study.results import SOURCES, StudyResults, load_study

PROVENANCE = b"sbp_tune"
"""Key of the file's metadata: JSON of format, version, time, and per study name, trials, devices, versions, study."""


def record(studies: Sequence[Path], output: Path) -> Path:
    """Writes the complete trials of finished studies as a replay table; returns `output`.

    An existing file is replaced, in one step. Stopped and failed trials have no whole curve and stay out. InputError
    where a study is unfinished or has no complete trial, where two have one name, and where some are simulated
    and others are not: a table would not say which of its energies were ever measured.
    """
    loaded = [load_study(path) for path in studies]
    if problems := _problems(loaded):
        raise InputError(problems)
    frame = pd.concat([_rows(study) for study in loaded], ignore_index=True)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    provenance = {
        "format": 1,
        "sbp-tune": __version__,
        "recorded": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "studies": [_provenance(study) for study in loaded],
    }
    metadata = {**(table.schema.metadata or {}), PROVENANCE: json.dumps(provenance).encode()}
    write_atomic(output, lambda file: pq.write_table(table.replace_schema_metadata(metadata), file))
    return output


def _problems(studies: list[StudyResults]) -> list[str]:
    problems, names = [], [study.name for study in studies]
    for study in studies:
        states = study.trials["state"].value_counts()
        unfinished = [f"{states[state]} {state}" for state in ("running", "interrupted") if state in states]
        if unfinished:
            problems.append(f"{study.path}: not finished ({', '.join(unfinished)}); only finished studies are recorded")
        elif "complete" not in states:
            problems.append(f"{study.path}: no trial was trained to its end, so there is nothing to record")
        if names.count(study.name) > 1:
            problems.append(f"{study.path}: another of these studies is called {study.name} too; trials would mix")
    if len({study.simulation is None for study in studies}) > 1:
        simulated = ", ".join(str(study.path) for study in studies if study.simulation)
        problems.append(f"{simulated}: simulated, and the others are not; record them apart")
    return problems


def _rows(study: StudyResults) -> pd.DataFrame:
    """A row per epoch of each complete trial."""
    complete = study.trials[study.trials["state"] == "complete"]
    config = [name for name in complete if str(name).startswith("config.")]
    sources = [name for name in SOURCES if name in complete]
    of_trial = complete[["trial", "kind", "device", *sources, *config]].assign(
        config_json=[json.dumps(study.config_of(int(trial))) for trial in complete["trial"]]
    )
    epochs = study.epochs.merge(of_trial, on="trial", validate="many_to_one")
    columns = epochs.columns.tolist()
    epochs = epochs.assign(study=study.name, versions=json.dumps(study.versions))
    return epochs[["study", *columns, "versions"]]


def _provenance(study: StudyResults) -> dict[str, Any]:
    complete = study.trials[study.trials["state"] == "complete"]
    return {
        "name": study.name,
        "trials": len(complete),
        "devices": sorted(set(complete["device"].dropna().map(str))),
        "versions": study.versions,
        "simulated": study.simulation,
        "study": study.study,
    }
