"""Records the trials of small.yaml, in one process on one thread, in the format of `sbp-tune record`.

    python -m benchmarks.early_stopping.record --data ~/cifar10-images

Real training without Ray, of the study's baselines and then of random proposals. What is recorded already is kept:
an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import torch

from benchmarks.machine import machine_name
from sbp_tune.config import check_config
from sbp_tune.files import write_atomic
from sbp_tune.study.file import Study, load_study_file
from sbp_tune.training import Training

BENCHMARKS = Path(__file__).parents[1]
FOLDER = "cifar10-images"  # what the table calls the folder, wherever it lies


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    study = load_study_file(options.study, [f"config.data.root={options.data}"])
    table = pd.read_parquet(options.output) if options.output.exists() else pd.DataFrame({"trial": []})
    for trial, (kind, config) in enumerate(_configs(study, options.trials or study.file.search.trials)):
        if trial in set(table["trial"]):
            continue
        rows = pd.DataFrame(_train(config)).assign(study=study.file.name, trial=trial, kind=kind, versions=_versions())
        config = {**config, "data": {**config["data"], "root": FOLDER}}
        rows = rows.assign(config_json=json.dumps(config), device=machine_name(torch.device("cpu")))
        table = pd.concat([table, rows], ignore_index=True) if len(table) else rows
        write_atomic(options.output, lambda path, rows=table: rows.to_parquet(path, index=False))
        print(f"{trial}: {rows['epoch'].iloc[-1]} epochs, {rows['val_accuracy'].iloc[-1]:.3f}", flush=True)


def _configs(study: Study, trials: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for point in study.baselines:
        yield "baseline", study.train_config(point)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    proposals = optuna.create_study(sampler=optuna.samplers.RandomSampler(study.file.search.seed))
    for _ in range(trials):
        yield "search", study.train_config(study.space.suggest(proposals.ask()))


def _train(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row per epoch; one that diverges ends there."""
    training = Training(check_config(config, "small.yaml"))
    try:
        while not training.finished:
            row = training.run_epoch()
            yield row
            if row["loss"] != row["loss"]:
                return
    finally:
        training.close()


def _versions() -> str:
    return json.dumps({"python": platform.python_version(), "torch": torch.__version__})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.early_stopping.record", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as class folders under train/ and test/")
    parser.add_argument("--study", type=Path, default=Path(__file__).with_name("small.yaml"))
    parser.add_argument("--trials", type=int, help="random proposals; without it, as many as the study file says")
    parser.add_argument("-o", "--output", type=Path, default=BENCHMARKS / "data" / "small.parquet")
    return parser


if __name__ == "__main__":
    main()
