"""A study directory as tidy tables, whatever state the study is in: running, crashed or finished."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial

from sbp_tune.energy.bill import TrialBill
from sbp_tune.files import read_yaml, write_atomic
from sbp_tune.study.duplicates import was_left_out
from sbp_tune.study.epochs import read_columns
from sbp_tune.study.ledger import study_bill
from sbp_tune.study.lock import is_in_use
from sbp_tune.study.retries import lost_attempts
from sbp_tune.study.settle import is_feasible
from sbp_tune.study.simulation import simulation_text
from sbp_tune.study.states import state_of
from sbp_tune.study.storage import REFUSED_NODES, attempts, check_directory, open_study, storage_errors
from sbp_tune.study.working import CONFIRM

# Columns of the tables, in this order; energies in kWh and cumulative, times in seconds.
METRICS = [
    *("epoch", "val_accuracy", "test_accuracy", "f1", "roc_auc", "precision", "recall", "loss", "val_loss"),
    *("test_f1", "test_roc_auc"),
    *("kwh", "kwh_wasted", "kwh_gpu", "kwh_cpu", "kwh_ram", "kwh_measured_share", "co2_kg", "mean_power_w"),
    *("train_time_s", "epoch_time_s", "tflop", "gpu_util", "peak_gpu_gb", "peak_rss_gb", "keep_fraction", "lr"),
]

# What each component of a trial's energy was read from: counter, integrated, model or none.
SOURCES = ("kwh_gpu_source", "kwh_cpu_source", "kwh_ram_source")


@dataclass(frozen=True)
class StudyResults:
    """One study: `trials` has a row per trial, `epochs` a row per trial and epoch.

    `trials`: trial, trial_id (Ray's, of the last attempt), attempts, state (complete, stopped, failed, and of
    unfinished trials running or interrupted), kind (search, baseline), feasible (whether it meets all
    `search.constraints`; None where there are none, or where that is not known), error, lost_attempts (why attempts
    ended before the trial did; None where none has), ended (local time, NaT while unfinished), device (its type; or
    'A + B' if it went on elsewhere), gpu_uuid (of all GPUs that an attempt of it held; there where one did), the
    METRICS of the last epoch (NaN where not measured), the SOURCES, and the whole config flattened to columns
    `config.<dotted key>`. `epochs`: trial, epoch, and the METRICS of that epoch.
    """

    name: str
    path: Path
    study: dict[str, Any]
    objectives: dict[str, str]
    versions: dict[str, str]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    configs: dict[int, dict[str, Any]]
    device: str | None = None  # the type within which trials are compared; None: see device_types.shown_device
    refused_nodes: tuple[str, ...] = ()  # machines on which no trial could run, with the reason of each

    @property
    def simulation(self) -> str | None:
        """What was played instead of training, as a sentence; None of a real study."""
        return simulation_text(self.study)

    def config_of(self, trial: int) -> dict[str, Any]:
        """The complete config of a trial, nested plain data."""
        return self.configs[trial]


def load_study(path: Path | str) -> StudyResults:
    """Reads a study directory. InputError where it is none; a broken trial becomes a row, not an error."""
    path = Path(path)
    check_directory(path)
    document = read_yaml(path / "study.yaml")
    storage, unfinished = open_study(path), "running" if is_in_use(path) else "interrupted"
    with storage_errors(path):
        records = storage.get_trials(deepcopy=False)
    begun = [r for r in records if r.state.name != "WAITING" and not was_left_out(r)]
    epochs, billed = _epochs(path, begun), study_bill(path)
    lasts, devices = _lasts(epochs), _devices(epochs)
    bills = billed.bill.trials if billed is not None and billed.bill is not None else {}
    trials, configs = [], {}
    for record in begun:
        attributes = record.user_attrs
        last = lasts.get(record.number, {})
        configs[record.number] = attributes.get("config", {})
        trials.append(
            {
                "trial": record.number,
                "trial_id": (attempts(record) or [""])[-1],
                "attempts": len(attempts(record)),
                "state": state_of(record, unfinished),
                "kind": "baseline" if "baseline" in attributes else "search",
                "feasible": is_feasible(record),
                "error": attributes.get("error"),
                "lost_attempts": _lost(record),
                "ended": record.datetime_complete,
                "device": devices.get(record.number),
                **{name: last.get(name) for name in (*METRICS, *SOURCES)},
                **_energy(bills.get(str(record.number)), last),
                **flat_columns(configs[record.number]),
            }
        )
    return StudyResults(
        name=document["name"],
        path=path,
        study=document,
        objectives=document["objectives"],
        versions=storage.user_attrs.get("versions", {}),
        trials=_typed(pd.DataFrame(trials, columns=None if trials else ["trial", "state", "kind", *METRICS])),
        epochs=epochs[["trial", *METRICS]],
        configs=configs,
        refused_nodes=tuple(storage.user_attrs.get(REFUSED_NODES, ())),
    )


def _lost(trial: FrozenTrial) -> str | None:
    """Why attempts of a trial ended before it did, on one line."""
    return "; ".join(f"attempt {number}: {why}" for number, why in lost_attempts(trial).items()) or None


def _epochs(path: Path, trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    """A row per trial and epoch, in this order: trial, METRICS, SOURCES and device. An epoch run twice is the last."""
    table = read_columns(path, [name for name in METRICS if name != "epoch"], [*SOURCES, "device"])
    table["epoch"] = table["epoch"].astype(float)
    places = {trial_id: (trial.number, place) for trial in trials for place, trial_id in enumerate(attempts(trial))}
    found = [places.get(trial_id, (-1, -1)) for trial_id in table["trial_id"].cat.categories]  # -1: nobody's
    found.append((-1, -1))  # of a row without
    codes = table["trial_id"].cat.codes.to_numpy()
    number, place = (np.array(column)[codes] for column in zip(*found, strict=True))
    order = np.lexsort((place, table["epoch"], number))  # of equal ones the first stays the first
    is_last = np.append((np.diff(number[order]) != 0) | (np.diff(table["epoch"].to_numpy()[order]) != 0), True)
    order = order[(number[order] >= 0) & is_last[: len(order)]]
    table.insert(0, "trial", number)
    return table.drop(columns="trial_id").take(order).reset_index(drop=True)


def _lasts(epochs: pd.DataFrame) -> dict[int, dict[str, Any]]:
    """The last row of each trial, by number; None for what it does not have."""
    rows = epochs.groupby("trial").tail(1).astype(object)
    plain = rows.where(rows.notna(), None).to_dict("records")
    return {int(row["trial"]): {str(name): value for name, value in row.items()} for row in plain}


def _devices(epochs: pd.DataFrame) -> dict[int, str]:
    """The type of device of each trial, by number; of one that was continued on another 'A + B'."""
    used = epochs[["trial", "device"]].dropna().drop_duplicates()
    devices: dict[int, str] = {}
    for trial, name in zip(used["trial"], used["device"], strict=True):
        devices[int(trial)] = f"{devices[int(trial)]} + {name}" if int(trial) in devices else str(name)
    return devices


def _energy(bill: TrialBill | None, last: dict[str, Any]) -> dict[str, Any]:
    """What the ledger says of a trial, all attempts together; nothing where it says nothing."""
    if bill is None:
        return {}
    kwh, reported = bill.kwh, last.get("kwh")
    known = {f"kwh_{name}": part.kwh for name, part in bill.components.items()}
    sources = {f"kwh_{name}_source": part.source for name, part in bill.components.items()}
    co2 = last["co2_kg"] * kwh / reported if kwh is not None and reported and last.get("co2_kg") is not None else None
    share = bill.measured_kwh / bill.known_kwh if bill.known_kwh and kwh is not None else None
    gpus = {uuid for attempt in bill.attempts for uuid in attempt.lease.gpus}
    return {
        **known,
        **sources,
        **({"gpu_uuid": " ".join(sorted(gpus))} if gpus else {}),
        **{"kwh": kwh, "kwh_wasted": bill.kwh_wasted, "co2_kg": co2, "kwh_measured_share": share},
    }


def useful(trials: pd.DataFrame, name: str) -> pd.Series:
    """A metric of trials, kWh and CO2 without what their crashes wasted: that is no property of a config.

    NaN where it was not recorded.
    """
    if name not in trials:
        return pd.Series(np.nan, index=trials.index, name=name, dtype=float)
    values = pd.to_numeric(trials[name], errors="coerce").astype(float)
    if name not in ("kwh", "co2_kg") or "kwh_wasted" not in trials:
        return values
    kwh, wasted = (pd.to_numeric(trials[key], errors="coerce").astype(float) for key in ("kwh", "kwh_wasted"))
    return values.where(~(wasted > 0), values * (1 - wasted / kwh))


def confirmation_path(path: Path) -> Path:
    """Where the confirmation of a study lies, itself a study's directory."""
    return path / CONFIRM


def write_tables(results: StudyResults) -> list[Path]:
    """Writes trials.csv, trials.parquet and epochs.parquet into the study directory, each atomically."""
    trials, epochs = results.trials, results.epochs
    writers = {
        "trials.csv": lambda file: trials.to_csv(file, index=False),
        "trials.parquet": lambda file: trials.to_parquet(file, index=False),
        "epochs.parquet": lambda file: epochs.to_parquet(file, index=False),
    }
    for name, writer in writers.items():
        write_atomic(results.path / name, writer)
    return [results.path / name for name in writers]


def flat_columns(config: dict[str, Any], prefix: str = "config") -> dict[str, Any]:
    """Nested config to `config.<dotted key>` columns; lists and empty mappings become JSON text."""
    columns: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}.{key}"
        if isinstance(value, dict) and value:
            columns |= flat_columns(value, name)
        else:
            columns[name] = json.dumps(value) if isinstance(value, (dict, list, tuple)) else value
    return columns


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Metrics as floats (None becomes NaN), mixed columns as text, so that parquet takes every study."""
    for name in table.columns:
        values = table[name]
        if name == "ended":
            table[name] = pd.to_datetime(values)
        elif name in METRICS:
            table[name] = pd.to_numeric(values, errors="coerce").astype(float)
        elif len({float if type(value) is int else type(value) for value in values.dropna()}) > 1:
            table[name] = values.map(str, na_action="ignore")
    return table
