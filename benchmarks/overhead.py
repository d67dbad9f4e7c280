"""What the platform adds to training: the same config under `sbp-tune train` and inside a search, in turn.

    python -m benchmarks.overhead -o benchmarks/results
    python -m benchmarks.overhead --quick

Wall and CPU time of a trial's start and of its epochs, the meter's share of a core, and the time from `sbp-tune search`
to the first batch, over rounds of one training and one search of two trials, one at a time: the second trial finds a
process that has torch loaded. Then the driver's load with 4 to 256 simulated GPUs, see `benchmarks.scale`.
CPU time is by process, sampled; what the search uses beside training is what the search costs, whoever uses it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch

from benchmarks.cpu_time import PARTS, Cpu, Span
from benchmarks.machine import machine_name
from benchmarks.scale import Costs, driver_study, simulate
from sbp_tune.energy.ledger import read_ledger
from sbp_tune.energy.records import EpochMark, Inventory, LeaseOpened
from sbp_tune.files import write_text_atomic, yaml_text
from sbp_tune.study.ledger import ledger_folder

GPUS = (4, 16, 64, 256)


def run_training(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One `sbp-tune train`: seconds to its first batch, and an epoch from the first to the last."""
    file = folder / "config.yaml"
    write_text_atomic(file, yaml_text(config))
    began = time.time()
    with _command("train", str(file), "-o", str(folder / "train")) as (process, cpu):
        ends = [time.time() for line in process.stdout if line.startswith("epoch ")]
    table = pd.read_csv(folder / "train" / "epochs.csv")
    first = ends[0] - table["epoch_time_s"][0]
    return {
        "start_s": first - began,
        **_epochs(cpu, Span(ends[0], ends[-1]), table["epoch_time_s"].to_list()),
        **_named("start_cpu_s", cpu.within(Span(began, first))),
    }


def run_search(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One `sbp-tune search` of the config: a trial of another seed, then, in the same process, one of its own."""
    study = {
        "name": "search",
        "config": {**config, "seed": {"grid": [1, 0]}},
        "search": {"sampler": "grid", "concurrent": 1},
        "resources": {"cpu": config["cpu_threads"]},
    }
    del study["config"]["cpu_threads"], study["config"]["device"]
    file = folder / "study.yaml"
    write_text_atomic(file, yaml_text(study))
    began = time.time()
    with _command("search", str(file), "--results", str(folder)) as (process, cpu):
        for _ in process.stdout:
            pass
    ended = time.time()
    path = folder / "search"
    trials = _from_ledger(path)
    rows = pd.read_json(path / "epochs.jsonl", lines=True)
    own = [rows[rows["trial_id"] == name]["epoch_time_s"].to_list() for name in rows["trial_id"].unique()]
    gap = Span(trials[0][-1], trials[1][0])
    last = Span(trials[-1][1], trials[-1][-1])
    whole = Span(trials[0][0], trials[-1][-1])
    meter = cpu.within(whole)["meter"] / whole.seconds
    return {
        "first_batch_s": trials[0][0] - began,
        **_named("first_batch_cpu_s", cpu.within(Span(began, trials[0][0]))),
        "start_s": gap.seconds,
        **_named("start_cpu_s", cpu.within(gap)),
        **_epochs(cpu, last, own[-1]),
        "meter_percent_of_a_core": 100 * meter,
        "end_s": ended - trials[-1][-1],
    }


def _epochs(cpu: Cpu, span: Span, own: list[float]) -> dict[str, float]:
    """Of an epoch after the first: wall time, what of it is outside training and validation, and CPU time by part."""
    count = len(own) - 1
    return {
        "epoch_s": span.seconds / count,
        "epoch_outside_s": (span.seconds - sum(own[1:])) / count,
        **{name: seconds / count for name, seconds in _named("epoch_cpu_s", cpu.within(span)).items()},
    }


def _named(name: str, parts: dict[str, float]) -> dict[str, float]:
    return {name: sum(parts.values()), **{f"{name}_{part}": seconds for part, seconds in parts.items()}}


def _from_ledger(path: Path) -> list[list[float]]:
    """Of each trial in its order: when its first batch began, and when each epoch ended, in Unix time."""
    offset, leases = 0.0, {}
    for record in read_ledger(ledger_folder(path), []):
        if isinstance(record, Inventory):
            offset = record.wall - record.time
        elif isinstance(record, LeaseOpened) and record.trial is not None:
            leases[record.lease] = [record.time + offset]
        elif isinstance(record, EpochMark):
            leases[record.lease].append(record.time + offset)
    return list(leases.values())


@contextmanager
def _command(*arguments: str) -> Iterator[tuple[Any, Cpu]]:
    """A command of sbp-tune, and its CPU time; SystemExit with what it said where it fails."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sbp_tune.cli", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    cpu = Cpu(psutil.Process(process.pid))
    with cpu.sampled():
        yield process, cpu
        _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"error: sbp-tune {arguments[0]} failed: {errors.strip()}")


def rounds(config: dict[str, Any], count: int) -> list[dict[str, dict[str, Any]]]:
    """Trainings and searches in turn, each round in the other order than the one before."""
    found = []
    for number in range(count):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            row = {}
            for arm in ("search", "train") if number % 2 else ("train", "search"):
                row[arm] = run_training(config, folder) if arm == "train" else run_search(config, folder)
        print(json.dumps({arm: _rounded(figures) for arm, figures in row.items()}), file=sys.stderr)
        found.append(row)
    return found


def summary(found: list[dict[str, dict[str, Any]]], epochs: int) -> dict[str, Any]:
    """Medians over the rounds, with the least and the most; what is added is the difference within a round."""
    both = {arm: {name: _spread([row[arm][name] for row in found]) for name in found[0][arm]} for arm in found[0]}

    def added(name: str) -> list[float]:
        return [row["search"][name] - row["train"][name] for row in found]

    def rest(row: dict[str, float], name: str) -> float:
        """CPU time of all but the process that trains."""
        return row[name] - row[f"{name}_training"]

    outside, wall = added("epoch_outside_s"), added("epoch_s")
    seconds = [row["train"]["epoch_s"] for row in found]
    return {
        **both,
        "added": {
            "epoch_s": _spread(wall),
            "epoch_outside_s": _spread(outside),
            "epoch_percent": _spread([100 * more / own for more, own in zip(wall, seconds, strict=True)]),
            "epoch_outside_percent": _spread([100 * more / own for more, own in zip(outside, seconds, strict=True)]),
            "epoch_cpu_s": _spread(added("epoch_cpu_s")),
            "epoch_cpu_s_of_others": _spread([rest(row["search"], "epoch_cpu_s") for row in found]),
            "trial_s": statistics.median(seconds) * epochs,
        },
    }


def load(trials: int) -> list[dict[str, float]]:
    """The driver's own work, by the number of simulated GPUs."""
    rows = []
    for gpus in GPUS:
        study = driver_study(max(trials, 2 * gpus))
        costs = Costs(study.total_trials, study.total_trials)
        with tempfile.TemporaryDirectory() as folder:
            simulated_s = simulate(study, Path(folder) / "scale", gpus, costs)
        [row] = costs.rows
        cpu_s = row["ms_a_trial_whole_process"] * row["trials"] / 1000
        rows.append(
            {
                "gpus": gpus,
                "trials": row["trials"],
                "ms_a_trial": row["ms_a_trial_whole_process"],
                "ms_a_result": row["ms_a_trial_whole_process"] / row["results_a_trial"],
                "trials_an_hour": 3600 * row["trials"] / simulated_s,
                "percent_of_a_core": 100 * cpu_s / simulated_s,
                "rss_gb": row["rss_gb"],
            }
        )
    return rows


def _spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def _shown(spread: dict[str, float] | None, factor: float) -> str:
    if spread is None:
        return ""
    median, least, most = (f"{factor * spread[name]:.3g}" for name in ("median", "min", "max"))
    return f"{median} ({least} to {most})"


def _table(result: dict[str, Any]) -> str:
    train, search, added = (result[name] for name in ("train", "search", "added"))

    def row(label: str, *cells: dict[str, float] | None, factor: float = 1.0, unit: str = "s") -> str:
        shown = [_shown(one, factor) for one in cells]
        return f"{label:44}" + "".join(f"{text:>26}" for text in shown) + f"  {unit}"

    lines = [
        f"{'median (least to most)':44}{'train':>26}{'search':>26}{'added':>26}",
        row("command to first batch, wall", train["start_s"], search["first_batch_s"], None),
        row("                        CPU", train["start_cpu_s"], search["first_batch_cpu_s"], None),
        row("start of a later trial, wall", None, search["start_s"], None),
        row("                        CPU", None, search["start_cpu_s"], None),
        row("epoch, wall", train["epoch_s"], search["epoch_s"], added["epoch_s"]),
        row("epoch, wall beside training and validation", train["epoch_outside_s"], search["epoch_outside_s"],
            added["epoch_outside_s"], factor=1000, unit="ms"),
        row("epoch, CPU", train["epoch_cpu_s"], search["epoch_cpu_s"], added["epoch_cpu_s"]),
        *(row(f"    of it {one}", None, search[f"epoch_cpu_s_{one}"], None, factor=1000, unit="ms") for one in PARTS),
        row(f"of a trial of {added['trial_s']:.0f} s", None, None, added["epoch_percent"], unit="%"),
        row("    by what is beside training", None, None, added["epoch_outside_percent"], unit="%"),
        row("meter", None, search["meter_percent_of_a_core"], None, unit="% of a core"),
    ]  # fmt: skip
    driver = pd.DataFrame(result["driver"]).round(3).to_string(index=False) if result["driver"] else ""
    return "\n".join([*lines, "", driver])


def _config(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "data": {"name": "digits", "image_size": options.image_size, "batch_size": 32},
        "model": {"name": "small_cnn", "args": {"width": options.width}},
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
        "epochs": options.epochs,
        "sparsity": {"estimator": "dense"},
        "cpu_threads": 1,
        "device": "cpu",
    }


def _settings(options: argparse.Namespace, config: dict[str, Any]) -> dict[str, Any]:
    packages = ("torch", "ray", "optuna", "numpy")
    return {
        "device": machine_name(torch.device("cpu")),
        "cores": os.cpu_count(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "load_average": [round(one, 1) for one in os.getloadavg()],
        "rounds": options.rounds,
        "config": config,
    }


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--image-size", type=int, default=32, help="pixels a side of the digits")
    parser.add_argument("--width", type=int, default=48, help="channels of the network's first layer")
    parser.add_argument("--trials", type=int, default=1000, help="of the simulated studies; 0: none")
    parser.add_argument("--quick", action="store_true", help="3 rounds, 300 simulated trials")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.add_argument("-o", "--output", type=Path, help="folder for a JSON file named after the machine")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.trials = min(options.rounds, 3), min(options.trials, 300)
    if options.epochs < 2 or options.rounds < 1:
        sys.exit("error: needs at least 2 epochs and 1 round")
    config = _config(options)
    settings = _settings(options, config)  # the load of the machine is that of before
    found = rounds(config, options.rounds)
    result = {**settings, **summary(found, options.epochs), "driver": load(options.trials) if options.trials else []}
    text = json.dumps(result, indent=1)
    print(text if options.json else _table(result))
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / f"overhead_{result['device']}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
