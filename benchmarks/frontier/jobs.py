"""One training run of the comparison, in a process of its own pool, and a log by which an interrupted one resumes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from sbp_tune.errors import SbpTuneError


class Result(NamedTuple):
    """What a run cost and reached: accuracies as fractions, seconds of training alone.

    seconds: CPU time of the process on a processor, wall time on a GPU. A run that diverged has no accuracy.
    """

    val_accuracy: float | None
    test_accuracy: float | None
    tflop: float
    seconds: float
    kwh: float | None
    measured_share: float | None


def run(config: dict[str, Any], test: bool = False, weights: Path | None = None) -> Result:
    """Trains a config to its end, then validates once, or tests if asked; keeps the weights if a path is given."""
    import torch

    from sbp_tune.config import check_config
    from sbp_tune.training import Training

    training = Training(check_config(config, "benchmarks.frontier"))
    clock = time.process_time if training.device.type == "cpu" else time.perf_counter
    start = clock()
    try:
        while not training.finished:
            row = training.run_epoch(validate=False)
        seconds = clock() - start
        # Images that tuning chose by are no part of a run that counts.
        validation = None if test else training.evaluate(training.data.val)["val_accuracy"]
        tested = training.test()[0]["test_accuracy"] if test else None
    except SbpTuneError:  # its loss was no longer a number
        seconds, validation, tested = clock() - start, None, None
    finally:
        training.close()
    if weights:
        torch.save(training.model.state_dict(), weights)
    return Result(validation, tested, row["tflop"], seconds, row["kwh"], row["kwh_measured_share"])


class Log:
    """Results by config, a JSON line each; a run that is in the log is not run again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def run(self, config: dict[str, Any], test: bool = False) -> Result:
        """As `run`, or what the log has of it."""
        key = hashlib.sha256(json.dumps([config, test], sort_keys=True).encode()).hexdigest()[:16]
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                if line.startswith(f'{{"key": "{key}"'):
                    return Result(**json.loads(line)["result"])
        result = run(config, test)
        with self._path.open("a") as file:  # one short write: lines of several processes do not mix
            file.write(json.dumps({"key": key, "result": result._asdict(), "config": config}) + "\n")
        return result


def in_processes(function: Any, tasks: list[tuple[Any, ...]], workers: int) -> Iterator[tuple[int, Any]]:
    """Calls function(*task) for each task; yields (place in tasks, what it returned) as they come in."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(function, *task): place for place, task in enumerate(tasks)}
        for future in as_completed(futures):
            yield futures[future], future.result()
