"""Records the trials of small.yaml, each on one thread, in the format of `sbp-tune record`.

    python -m benchmarks.early_stopping.record --data ~/cifar10-images

Real training without Ray, of the study's baselines and then of random proposals. What is recorded already is kept:
an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
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
    torch.set_num_threads(1)  # as every trial has
    study = load_study_file(options.study, [f"config.data.root={options.data}"])
    table = pd.read_parquet(options.output) if options.output.exists() else pd.DataFrame({"trial": []})
    about = {"study": study.file.name, "device": machine_name(torch.device("cpu")), "versions": _versions()}
    planned = enumerate(_configs(study, options.trials or study.file.search.trials))
    left = [(trial, kind, config) for trial, (kind, config) in planned if trial not in set(table["trial"])]
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        for (trial, kind, config), rows in zip(left, pool.map(_train, [config for *_, config in left]), strict=True):
            config = {**config, "data": {**config["data"], "root": FOLDER}}
            new = pd.DataFrame(rows).assign(trial=trial, kind=kind, config_json=json.dumps(config), **about)
            table = pd.concat([table, new], ignore_index=True) if len(table) else new
            write_atomic(options.output, lambda path, whole=table: whole.to_parquet(path, index=False))
            print(f"{trial}: {rows[-1]['epoch']} epochs, accuracy {rows[-1]['val_accuracy']:.3f}", flush=True)


def _configs(study: Study, trials: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for point in study.baselines:
        yield "baseline", study.train_config(point)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    proposals = optuna.create_study(sampler=optuna.samplers.RandomSampler(study.file.search.seed))
    for _ in range(trials):
        yield "search", study.train_config(study.space.suggest(proposals.ask()))


def _train(config: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per epoch; a run that diverges ends with the epoch in which it did."""
    training = Training(check_config(config, "config"))  # by cpu_threads on one thread
    rows: list[dict[str, Any]] = []
    while not training.finished and (not rows or math.isfinite(rows[-1]["loss"])):
        rows.append(training.run_epoch())
    training.close()
    return rows


def _versions() -> str:
    return json.dumps({"python": platform.python_version(), "torch": torch.__version__})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.early_stopping.record", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as class folders under train/ and test/")
    parser.add_argument("--study", type=Path, default=Path(__file__).with_name("small.yaml"))
    parser.add_argument("--trials", type=int, help="random proposals; without it, as many as the study file says")
    parser.add_argument("--workers", type=int, default=1, help="trials at a time")
    parser.add_argument("-o", "--output", type=Path, default=BENCHMARKS / "data" / "small.parquet")
    return parser


if __name__ == "__main__":
    main()
