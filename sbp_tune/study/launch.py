"""Runs a study on Ray: a new one, or one that was interrupted."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from sbp_tune.errors import InputError, SbpTuneError, StorageError
from sbp_tune.files import read_yaml, write_text_atomic, yaml_text
from sbp_tune.study.duplicates import counts
from sbp_tune.study.epochs import merged_rows, read_rows
from sbp_tune.study.file import Study, load_study_file
from sbp_tune.study.ledger import ledger_folder
from sbp_tune.study.lock import only_writer
from sbp_tune.study.placement import ray_nodes, trials_at_a_time
from sbp_tune.study.preflight import check_on_this_machine, load_trainable
from sbp_tune.study.ray_session import connected_ray
from sbp_tune.study.storage import (
    attempts,
    check_directory,
    create_study,
    drop_study,
    mend,
    open_study,
    put_back,
    storage_errors,
)
from sbp_tune.study.versions import versions

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
        with only_writer(path), _told_how_to_go_on(path):
            return _run(study, path, concurrent, cross_checked)


def resume(
    path: Path, address: str | None = None, cross_checked: bool = False, overrides: Sequence[str] = ()
) -> Ending:
    """Continues an interrupted study: finished trials stay, unfinished ones go on from their last checkpoint.

    overrides: `budget.key=YAML value`, which the study keeps; nothing else of it can change.

    Ray's own restore is not used: after a kill its saved state can be older than the checkpoints that are
    left. The study's storage is told of every ending at once, and is never older than what ended.
    """
    check_directory(path)
    if others := [override for override in overrides if not override.startswith("budget.")]:
        again = (
            f"only budget.KEY can be set for a study that has begun; `sbp-tune search {path}/study.yaml` makes another"
        )
        raise InputError([f"--set {override}: {again}" for override in others])
    with only_writer(path):
        return go_on(load_study_file(path / "study.yaml", list(overrides)), path, address, cross_checked)


def stored_study(path: Path) -> Study:
    """The study of a directory; InputError where it is none."""
    check_directory(path)
    return load_study_file(path / "study.yaml")


def go_on(study: Study, path: Path, address: str | None, cross_checked: bool) -> Ending:
    """Runs what is left of a study, as its only writer.

    study: that of the directory, or it with more trials or another budget, which it then becomes.
    """
    from sbp_tune.study.budget_keeper import BudgetKeeper

    with _told_how_to_go_on(path):
        if ended_trials(study, path) >= study.total_trials:
            raise InputError(f"{path}: all {study.total_trials} trials of this study have ended; nothing to resume")
        if why := BudgetKeeper(study, path).used_up():
            again = f"`sbp-tune resume {path} --set budget.KEY=VALUE` raises it"
            raise InputError(f"{path}: its budget is used up: {why}; {again}")
        check_on_this_machine(study, address)
        with connected_ray(address):
            concurrent = trials_at_a_time(study, ray_nodes())
            _store(study, path)
            return _run(study, path, concurrent, cross_checked)


def ended_trials(study: Study, path: Path) -> int:
    """How many trials have ended, those included that a dying driver told nobody of. For the only writer."""
    mend(path)
    _settle_ended(study, path)
    trials = open_study(path).get_trials(deepcopy=False)
    return sum(trial.state.is_finished() and counts(trial) for trial in trials)


def _store(study: Study, path: Path) -> None:
    """Makes the directory's study this one. What study.yaml says, the storage follows, also after a crash between."""
    from sbp_tune.study.searcher import enqueue_fixed_points

    if read_yaml(path / "study.yaml") != study.document:
        write_text_atomic(path / "study.yaml", yaml_text(study.document))
    enqueue_fixed_points(open_study(path), study)


def _create(study: Study, path: Path) -> None:
    """Makes the study directory in one step, with all that `resume` needs."""
    from sbp_tune.study.searcher import enqueue_fixed_points

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        made = Path(folder) / path.name
        made.mkdir()
        write_text_atomic(made / "study.yaml", yaml_text(study.document))
        storage = create_study(made, study.file.name, study.objectives, {"versions": versions()})
        with storage_errors(made):
            try:
                enqueue_fixed_points(storage, study)
                made.rename(path)
            except BaseException as error:
                drop_study(storage)  # a database would keep it
                if isinstance(error, OSError):  # somebody made it since we looked
                    raise _exists(path) from error
                raise


def _exists(path: Path) -> InputError:
    return InputError(
        f"{path}: a study of this name exists; continue it with `sbp-tune resume {path}`, or give another --name"
    )


def _run(study: Study, path: Path, concurrent: int, cross_checked: bool) -> Ending:
    import ray.tune

    from sbp_tune.energy.node_actor import NodeLease
    from sbp_tune.study.blocks import BlockSearcher
    from sbp_tune.study.budget_keeper import BudgetKeeper
    from sbp_tune.study.cross_check import cross_check
    from sbp_tune.study.leases import LeaseEnder
    from sbp_tune.study.progress import Progress
    from sbp_tune.study.recorder import Recorder
    from sbp_tune.study.scheduler import make_scheduler
    from sbp_tune.study.searcher import OptunaSearcher

    file, interrupted = study.file, False
    metered = file.simulate is None  # what a simulation itself uses is no part of what it is about

    def interrupt(*_: Any) -> None:
        # Ray stops after the present step on SIGUSR1 as on its own SIGINT, but does not say afterwards
        # that it did.
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C does not wait
        signal.raise_signal(signal.SIGUSR1)

    lease = NodeLease(ledger_folder(path), None, 0, file.energy, {}, 0)
    confirm = file.confirm
    labels = None if confirm is None else [f"(point {run.point}, seed {run.seed})" for run in confirm.runs]
    recorder, progress = Recorder(study, path, stop=interrupt), Progress(path, study.total_trials, labels)
    budget = BudgetKeeper(study, path, progress.say)
    searcher = OptunaSearcher(study, path, budget.admits) if confirm is None else BlockSearcher(study, path, confirm)
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(
            load_trainable(study.trainable), {"cpu": study.resources.cpu, "gpu": study.resources.gpu}
        ),
        tune_config=ray.tune.TuneConfig(
            search_alg=searcher,
            scheduler=make_scheduler(study, path),
            num_samples=-1,  # the searcher knows when all are proposed, however often the study was resumed
            max_concurrent_trials=concurrent,
            reuse_actors=True,  # importing torch costs seconds a process
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=ray.tune.RunConfig(
            name="ray",
            storage_path=str(path.resolve()),
            callbacks=[recorder, progress, *([LeaseEnder()] if metered else [])],
            stop=budget,
            # Two: a crash can cut the newest short while it is written.
            checkpoint_config=ray.tune.CheckpointConfig(num_to_keep=2, checkpoint_frequency=1),
            verbose=0,
        ),
    )
    node = ray.get_runtime_context().get_node_id()
    problems: list[str] = []
    try:
        with _signals(interrupt):
            budget.begin()
            if metered:
                lease.start()
            try:
                with cross_check(path, file.energy, node) if cross_checked and metered else nullcontext():
                    tuner.fit()
            finally:
                if metered:
                    problems = _end_metering(lease, "stopped" if interrupted else "finished", ledger_folder(path))
            budget.end()
    finally:
        progress.close()
    if searcher.ended_early is not None:
        problems.append(searcher.ended_early)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    if isinstance(recorder.stopped_by, InputError):
        raise InputError([*recorder.stopped_by.problems, _go_on(path)])
    if recorder.stopped_by is not None:
        raise SbpTuneError(f"{recorder.stopped_by}\n{_go_on(path)}")
    if interrupted:
        return Ending.INTERRUPTED
    _settle_stopped(study, path)
    return Ending.FINISHED


@contextmanager
def _told_how_to_go_on(path: Path) -> Iterator[None]:
    """A disk or storage that fails under a study, as two lines: what failed, and how to go on."""
    try:
        with storage_errors(path):
            yield
    except StorageError as error:
        raise SbpTuneError(f"{error}\n{_go_on(path)}") from error
    except OSError as error:
        raise SbpTuneError(f"{error.filename or path}: {error.strerror or error}\n{_go_on(path)}") from error


def _go_on(path: Path) -> str:
    return f"{path}: stopped; after mending it, go on with `sbp-tune resume {path}`"


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
    from sbp_tune.study.settle import settle

    storage, scheduler = open_study(path), make_scheduler(study, path)
    stopped = scheduler.stopped if scheduler is not None else {}
    unfinished = storage.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    log = read_rows(path, {attempt for trial in unfinished for attempt in attempts(trial)})
    for trial in unfinished:
        rows = merged_rows(log, attempts(trial))
        if rows and (rows[-1].get("fully_trained") or trial.number in stopped):
            settle(storage, trial.number, rows[-1], study)


def _settle_stopped(study: Study, path: Path) -> None:
    """Tells the storage of trials that the budget stopped: Ray tells its searcher nothing of these."""
    from sbp_tune.study.settle import settle

    storage = open_study(path)
    for trial in storage.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if attempts(trial):
            settle(storage, trial.number, None, study)
        else:  # proposed, and never started
            put_back(storage, trial.number)


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
