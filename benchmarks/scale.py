"""What a large study costs its driver: time per trial, memory, and how long a proposal takes as trials add up.

    python -m benchmarks.scale --trials 5000 --concurrent 64
    python -m benchmarks.scale --trials 300 --ray
    python -m benchmarks.scale --latency 100 300 1000 3000 5000
    python -m benchmarks.scale --load results/STUDY

Searcher, scheduler, log and console are the real ones, with the study's storage on a disk; Ray's controller and its
actors are stood for by an event loop in simulated time that calls them as Ray does, so that 64 GPUs fit on one core.
With `--ray` it is a whole search on a real Ray instead, with as many actors as this machine has cores. Milliseconds
are of processor time, those of `wall` apart: on a busy machine or a slow disk they say little of us.
"""

from __future__ import annotations

import argparse
import heapq
import io
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pandas as pd
import psutil
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from rich.console import Console

from benchmarks.machine import machine_name
from sbp_tune.config import TrainConfig
from sbp_tune.study import launch
from sbp_tune.study.checkpoints import RAY
from sbp_tune.study.event_log import EventLog
from sbp_tune.study.file import Study, load_study_file
from sbp_tune.study.lock import only_writer
from sbp_tune.study.progress import Progress
from sbp_tune.study.prometheus import Prometheus
from sbp_tune.study.recorder import Recorder, number_in
from sbp_tune.study.scheduler import MOASHA
from sbp_tune.study.schedulers import make_scheduler
from sbp_tune.study.searcher import OptunaSearcher
from sbp_tune.study.sections import SimulateConfig
from sbp_tune.study.watching import Watching
from search_spaces import shipped_spaces
from trainables.replay import Replay
from trainables.response import response

_PARTS: list[tuple[type, str, str]] = [
    (OptunaSearcher, "suggest", "suggest"),
    (OptunaSearcher, "on_trial_complete", "tell"),
    (MOASHA, "on_trial_result", "scheduler"),
    (Recorder, "on_trial_result", "log"),
    (Progress, "on_trial_start", "console"),
    (Progress, "on_trial_result", "console"),
    (Progress, "on_trial_complete", "console"),
    (Watching, "on_trial_start", "watchers"),
    (Watching, "on_trial_result", "watchers"),
    (Watching, "on_trial_complete", "watchers"),
]


class Costs:
    """What the parts of a driver cost, for every so many trials that end; `rows` has them."""

    def __init__(self, every: int, total: int) -> None:
        self._every, self._total = every, total
        self._ms: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._ended, self._process = 0, 0.0
        self.rows: list[dict[str, float]] = []

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Within it, what is called of a driver's parts is timed."""
        originals = [(owner, name, getattr(owner, name)) for owner, name, _ in _PARTS]
        self._process = time.process_time()
        try:
            for owner, name, part in _PARTS:
                setattr(owner, name, self._timed(getattr(owner, name), part, f"{owner.__name__}.{name}"))
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)

    def _timed(self, function: Callable[..., Any], part: str, name: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            start, cpu = time.perf_counter(), time.process_time()
            result = function(*arguments, **named)
            self._ms[part] += 1000 * (time.process_time() - cpu)
            self._ms["wall"] += 1000 * (time.perf_counter() - start)
            self._calls[name] += 1
            if name == "Watching.on_trial_complete":
                self._count()
            return result

        return timed

    def _count(self) -> None:
        self._ended += 1
        if self._ended % self._every and self._ended != self._total:
            return
        ended = self._ended - (self.rows[-1]["trials"] if self.rows else 0)
        parts = {
            part: self._ms[part] / ended for part in ("suggest", "scheduler", "log", "console", "watchers", "tell")
        }
        self.rows.append(
            {
                "trials": self._ended,
                "results_a_trial": self._calls["Recorder.on_trial_result"] / ended,
                "ms_a_proposal": self._ms["suggest"] / max(1, self._calls["OptunaSearcher.suggest"]),
                **{f"ms_{part}": ms for part, ms in parts.items()},
                "ms_a_trial": sum(parts.values()),
                "ms_a_trial_wall": self._ms["wall"] / ended,
                "ms_a_trial_whole_process": 1000 * (time.process_time() - self._process) / ended,
                "rss_gb": psutil.Process().memory_info().rss / 1e9,
            }
        )
        print(json.dumps({name: round(value, 3) for name, value in self.rows[-1].items()}), file=sys.stderr)
        self._process = time.process_time()
        self._ms.clear()
        self._calls.clear()


class Cluster:
    """Stands for Ray's controller and its actors: the same calls in the same order, in simulated time."""

    def __init__(self, study: Study, path: Path, concurrent: int) -> None:
        self._concurrent, self._path = concurrent, path
        self._scheduler = make_scheduler(study, path)
        self._searcher = OptunaSearcher(study, path, scheduler=self._scheduler)
        self._recorder = Recorder(study, path, stop=lambda: None)
        self._progress = Progress(path, study.total_trials, console=Console(file=io.StringIO()))
        self._watching = Watching(path)
        self._watching.begin([EventLog(path, study.file.name), Prometheus(study, path, lambda: 0.0)], {})
        self._events: list[tuple[float, int, Any, Any, dict[str, Any]]] = []  # when a result comes in, and whose
        self._proposed = self._results = 0
        self._now, self._finished = 0.0, False

    def run(self) -> float:
        """Runs the study; simulated seconds that it took."""
        while self._events or not self._finished:
            while len(self._events) < self._concurrent and self._start():
                pass
            if not self._events:
                break
            self._now, _, trial, trainable, row = heapq.heappop(self._events)
            self._take(trial, trainable, row)
        return self._now

    def _start(self) -> bool:
        if self._finished:
            return False
        trial_id = f"{self._proposed:08d}"
        config = self._searcher.suggest(trial_id)
        self._finished = config == Searcher.FINISHED
        if not isinstance(config, dict):
            return False
        self._proposed += 1
        trial = SimpleNamespace(trial_id=trial_id, config=config, last_result={}, pickled_error_file=None)
        self._progress.on_trial_start(0, [], trial)
        self._watching.on_trial_start(0, [], trial)
        self._train(trial, Replay(config))
        return True

    def _train(self, trial: Any, trainable: Any) -> None:
        row = trainable.train()
        self._results += 1
        heapq.heappush(self._events, (self._now + row["epoch_time_s"], self._results, trial, trainable, row))

    def _take(self, trial: Any, trainable: Any, row: dict[str, Any]) -> None:
        result, stopped = {**row, "trial_id": trial.trial_id}, False
        if self._scheduler is not None:
            stopped = self._scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP
        self._recorder.on_trial_result(0, [], trial, result)
        self._progress.on_trial_result(0, [], trial, result)
        self._watching.on_trial_result(0, [], trial, result)
        trial.last_result = result
        if not (row["done"] or stopped):
            self._train(trial, trainable)
            return
        if self._scheduler is not None and number_in(trial) in self._scheduler.waiting:
            trainable.save(str(self._path / RAY / trial.trial_id / "checkpoint_000000"))
        self._searcher.on_trial_complete(trial.trial_id, result)
        self._progress.on_trial_complete(0, [], trial)
        self._watching.on_trial_complete(0, [], trial)
        trainable.stop()


def driver_study(
    trials: int,
    study: str = "resnet18_cifar10",
    sampler: str = "random",
    scheduler: str = "moasha",
    overrides: Sequence[str] = (),
) -> Study:
    """A shipped study file with so many trials, simulated and without a budget."""
    search = [f"search.{key}={value}" for key, value in (("trials", trials), ("sampler", sampler))]
    changed = [*search, f"search.scheduler={scheduler}", "budget={}", *overrides]
    return load_study_file(shipped_spaces()[study], changed, "scale", SimulateConfig())


def simulate(study: Study, path: Path, concurrent: int, costs: Costs) -> float:
    """Runs a study in a new directory on a simulated cluster; the simulated seconds that it took."""
    launch._create(study, path)
    with only_writer(path), costs.measured():
        seconds = Cluster(study, path, concurrent).run()
    print(f"{study.total_trials} trials in {seconds / 3600:.1f} simulated hours on {concurrent} GPUs", file=sys.stderr)
    return seconds


def latency(study: Study, sizes: list[int], repeats: int = 3) -> list[dict[str, float]]:
    """Milliseconds of a proposal of the study's sampler by the number of trials that it knows, complete, in memory."""
    known = optuna.create_study(
        directions=["maximize" if mode == "max" else "minimize" for mode in study.objectives.values()],
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    with tempfile.TemporaryDirectory() as folder:
        launch._create(study, Path(folder) / "study")
        sampler = OptunaSearcher(study, Path(folder) / "study")._optuna.sampler
    rows: list[dict[str, float]] = []
    for size in sizes:
        known.sampler = optuna.samplers.RandomSampler(seed=size)
        while len(known.get_trials(deepcopy=False, states=[TrialState.COMPLETE])) < size:
            trial = known.ask()
            last = response(TrainConfig.model_validate(study.train_config(study.space.suggest(trial))))[-1]
            known.tell(trial, [last[name] for name in study.objectives])
        known.sampler, took = sampler, []
        for _ in range(repeats):
            start = time.process_time()
            trial = known.ask()
            study.space.suggest(trial)
            took.append(1000 * (time.process_time() - start))
            known.tell(trial, state=TrialState.FAIL)
        rows.append({"trials": size, "ms_a_proposal": statistics.median(took)})
        print(json.dumps({"sampler": study.file.search.sampler} | rows[-1]), file=sys.stderr)
    return rows


def load(path: Path) -> dict[str, float]:
    """Seconds and GB of reading a study, of its tables and of its report; files go to a folder that is deleted."""
    import dataclasses

    from analysis.report import write_report
    from sbp_tune.memory import peak_memory_gb
    from sbp_tune.study.results import load_study, write_tables

    row, steps = {}, {"load": lambda _: load_study(path), "tables": write_tables, "report": write_report}
    with tempfile.TemporaryDirectory() as folder:
        study: Any = None
        for name, step in steps.items():
            start, cpu = time.perf_counter(), time.process_time()
            found = step(study, Path(folder) / "report.html") if name == "report" else step(study)
            study = dataclasses.replace(found, path=Path(folder)) if name == "load" else study
            row |= {f"{name}_s": time.process_time() - cpu, f"{name}_s_wall": time.perf_counter() - start}
        row["report_mb"] = (Path(folder) / "report.html").stat().st_size / 1e6
    return {"trials": len(study.trials), "epochs": len(study.epochs), **row, "peak_gb": peak_memory_gb()}


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(arguments)

    def study_of(sampler: str) -> Study:
        return driver_study(options.trials, options.study, sampler, options.scheduler, options.overrides)

    if options.load:
        table, kind = pd.DataFrame([load(options.load)]), "load"
    elif options.latency:
        found = [{"sampler": s} | row for s in options.sampler for row in latency(study_of(s), options.latency)]
        table, kind = pd.DataFrame(found), "latency"
    else:
        study, [sampler] = study_of(options.sampler[0]), options.sampler[:1]
        costs = Costs(max(1, options.trials // 20), study.total_trials)
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            if options.ray:
                with costs.measured():
                    launch.search(study, Path(folder) / "scale")
            else:
                simulate(study, Path(folder) / "scale", options.concurrent, costs)
        where = "ray" if options.ray else f"{options.concurrent}gpus"
        table, kind = pd.DataFrame(costs.rows), f"{where}_{sampler}_{options.scheduler}_{options.trials}trials"
    import torch

    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / f"scale_{machine_name(torch.device('cpu'))}_{kind}.csv"
    table.round(4).to_csv(file, index=False)
    print(table.round(2).to_string(index=False))
    print(file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--concurrent", type=int, default=64, help="simulated GPUs")
    parser.add_argument("--study", default="resnet18_cifar10", choices=shipped_spaces(), help="a shipped study file")
    parser.add_argument("--sampler", nargs="+", default=["random"], help="of a run the first; of --latency all")
    parser.add_argument("--scheduler", default="moasha")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--ray", action="store_true", help="on a real Ray, with an actor for each core")
    parser.add_argument("--latency", type=int, nargs="+", metavar="TRIALS", help="only proposals, of so many trials")
    parser.add_argument("--load", type=Path, metavar="STUDY", help="only reading a study that is there")
    parser.add_argument("--work", type=Path, help="where the study is written while it runs [a temporary folder]")
    parser.add_argument("-o", "--output", type=Path, default=Path("results/scale"), help="folder of the table")
    return parser


if __name__ == "__main__":
    main()
