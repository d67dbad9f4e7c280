"""Runs a study on Ray: a new one, or one that was interrupted."""

from __future__ import annotations

import os
import platform
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.files import write_text_atomic, yaml_text
from sbp_tune.study.epochs import merged_rows, read_rows
from sbp_tune.study.file import Study, load_study_file
from sbp_tune.study.ledger import ledger_folder
from sbp_tune.study.lock import only_writer
from sbp_tune.study.placement import ray_nodes, trials_at_a_time
from sbp_tune.study.preflight import check_on_this_machine, load_trainable
from sbp_tune.study.ray_session import connected_ray
from sbp_tune.study.results import load_study
from sbp_tune.study.storage import attempts, create_study, open_study

if TYPE_CHECKING:
    from sbp_tune.energy.node_actor import NodeLease
    from sbp_tune.energy.records import Reason


class Ending(Enum):
    """How a search ended; whatever finished before is kept in any case."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"


def search(study: Study, path: Path, address: str | None = None, cross_checked: bool = False) -> Ending:
    """Runs a new study in a new directory; cross_checked: with CodeCarbon beside the ledger.

    InputError where the directory exists, the data or model cannot be used, or Ray lacks the resources.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise _exists(path)
    check_on_this_machine(study, address)
    with connected_ray(address):
        concurrent = trials_at_a_time(study, ray_nodes())
        _create(study, path)
        with only_writer(path):
            return _run(study, path, concurrent, cross_checked)


def resume(path: Path, address: str | None = None, cross_checked: bool = False) -> Ending:
    """Continues an interrupted study: finished trials stay, unfinished ones go on from their last checkpoint.

    Ray's own restore is not used: after a kill its saved state can be older than the checkpoints that are
    left. The study's storage is told of every ending at once, and is never older than what ended.
    """
    for needed in ("study.yaml", "study.db"):
        if not (path / needed).is_file():
            raise InputError(f"{path}: not a study directory: it has no {needed}")
    study = load_study_file(path / "study.yaml")
    with only_writer(path):
        _settle_ended(study, path)
        ended = sum(trial.state.is_finished() for trial in open_study(path).get_trials(deepcopy=False))
        if ended >= study.total_trials:
            raise InputError(f"{path}: all {study.total_trials} trials of this study have ended; nothing to resume")
        kwh = study.file.budget.kwh
        if kwh is not None and _spent_kwh(path) >= kwh:
            raise InputError(f"{path}: its budget of {kwh:g} kWh is used up; nothing to resume")
        check_on_this_machine(study, address)
        with connected_ray(address):
            return _run(study, path, trials_at_a_time(study, ray_nodes()), cross_checked)


def _create(study: Study, path: Path) -> None:
    """Makes the study directory in one step, with all that `resume` needs."""
    from sbp_tune.study.searcher import enqueue_fixed_points

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        made = Path(folder) / path.name
        made.mkdir()
        write_text_atomic(made / "study.yaml", yaml_text(study.document))
        storage = create_study(made, study.file.name, study.objectives, {"versions": _versions()})
        enqueue_fixed_points(storage, study)
        try:
            made.rename(path)
        except OSError as error:  # somebody made it since we looked
            raise _exists(path) from error


def _exists(path: Path) -> InputError:
    return InputError(
        f"{path}: a study of this name exists; continue it with `sbp-tune resume {path}`, or give another --name"
    )


def _run(study: Study, path: Path, concurrent: int, cross_checked: bool) -> Ending:
    import ray.tune

    from sbp_tune.energy.node_actor import NodeLease
    from sbp_tune.study.budget import KwhBudget
    from sbp_tune.study.cross_check import cross_check
    from sbp_tune.study.progress import Progress
    from sbp_tune.study.recorder import Recorder
    from sbp_tune.study.scheduler import make_scheduler
    from sbp_tune.study.searcher import OptunaSearcher

    file, interrupted = study.file, False

    def interrupt(*_: Any) -> None:
        # Ray stops after the present step on SIGUSR1 as on its own SIGINT, but does not say afterwards
        # that it did.
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C does not wait
        signal.raise_signal(signal.SIGUSR1)

    lease = NodeLease(ledger_folder(path), None, 0, file.energy, {}, 0)
    recorder, progress = Recorder(path, stop=interrupt), Progress(path, study.total_trials)
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(
            load_trainable(study.trainable), {"cpu": study.resources.cpu, "gpu": study.resources.gpu}
        ),
        tune_config=ray.tune.TuneConfig(
            search_alg=OptunaSearcher(study, path),
            scheduler=make_scheduler(study, path),
            num_samples=-1,  # the searcher knows when all are proposed, however often the study was resumed
            max_concurrent_trials=concurrent,
            reuse_actors=True,  # importing torch costs seconds a process
            time_budget_s=None if file.budget.hours is None else file.budget.hours * 3600,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=ray.tune.RunConfig(
            name="ray",
            storage_path=str(path.resolve()),
            callbacks=[recorder, progress],
            stop=None if file.budget.kwh is None else KwhBudget(file.budget.kwh, _spent_kwh(path)),
            # Two: a crash can cut the newest short while it is written.
            checkpoint_config=ray.tune.CheckpointConfig(num_to_keep=2, checkpoint_frequency=1),
            verbose=0,
        ),
    )
    node, metered = ray.get_runtime_context().get_node_id(), file.simulate is None
    problems: list[str] = []
    try:
        with _signals(interrupt):
            if metered:  # what a simulation itself uses is no part of what it is about
                lease.start()
            try:
                with cross_check(path, file.energy, node) if cross_checked and metered else nullcontext():
                    tuner.fit()
            finally:
                if metered:
                    problems = _end_metering(lease, "stopped" if interrupted else "finished", ledger_folder(path))
    finally:
        progress.close()
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    if recorder.stopped_by is not None:
        why, again = recorder.stopped_by, f"{path}: stopped; after mending it, go on with `sbp-tune resume {path}`"
        raise InputError([*why.problems, again]) if isinstance(why, InputError) else SbpTuneError(f"{why}\n{again}")
    if interrupted:
        return Ending.INTERRUPTED
    _settle_stopped(study, path)
    return Ending.FINISHED


def _end_metering(lease: NodeLease, reason: Reason, folder: Path) -> list[str]:
    """Ends the driver's lease and the meters; what went wrong. Never an error: that would hide the search's own."""
    from ray.exceptions import RayError

    from sbp_tune.energy.node_actor import stop_meters

    problems: dict[str, None] = {}
    try:
        lease.stop(reason)
    except SbpTuneError as error:
        problems[str(error)] = None
    try:
        problems |= dict.fromkeys(stop_meters(folder))
    except (RayError, RuntimeError, OSError) as error:  # no Ray any more, say
        problems[f"the energy meters could not be stopped: {error}"] = None
    return list(problems)


def _settle_ended(study: Study, path: Path) -> None:
    """Tells the storage of trials that were trained, or that the scheduler had stopped, just when the driver died."""
    from sbp_tune.study.scheduler import make_scheduler
    from sbp_tune.study.searcher import settle

    storage, scheduler = open_study(path), make_scheduler(study, path)
    stopped = scheduler.stopped if scheduler is not None else {}
    unfinished = storage.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    log = read_rows(path, {attempt for trial in unfinished for attempt in attempts(trial)})
    for trial in unfinished:
        rows = merged_rows(log, attempts(trial))
        if rows and (rows[-1].get("fully_trained") or trial.number in stopped):
            settle(storage, trial.number, rows[-1], study.objectives, study.file.search.tie)


def _settle_stopped(study: Study, path: Path) -> None:
    """Tells the storage of trials that the budget stopped: Ray tells its searcher nothing of these."""
    from sbp_tune.study.searcher import settle

    storage = open_study(path)
    for trial in storage.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        settle(storage, trial.number, None, study.objectives)


def _spent_kwh(path: Path) -> float:
    """kWh of the trials that have ended, and what the others will not report again: it came after a checkpoint."""
    study = load_study(path)
    trials = study.trials
    told = study.epochs.groupby("trial")["kwh"].last().reindex(trials["trial"]).fillna(0.0).to_numpy()
    ended = trials["state"].isin(["complete", "stopped", "failed"])
    return float(trials["kwh"].where(ended, (trials["kwh"] - told).clip(lower=0)).sum())


@contextmanager
def _signals(interrupt: Any) -> Iterator[None]:
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # The default action of SIGUSR1 ends the process; Ray's handler is only there while it runs.
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, interrupt),
        signal.SIGTERM: signal.signal(signal.SIGTERM, interrupt),
        signal.SIGUSR1: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("sbp-tune", "torch", "torchvision", "ray", "optuna"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that was not installed
            versions[package] = "unknown"
    return versions
