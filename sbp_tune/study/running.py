"""One start of a study on Ray: searcher, scheduler, meters and callbacks around Ray's tuner, and how it ended."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from sbp_tune.errors import InputError, SbpTuneError, StorageError
from sbp_tune.study.autoscaler import autoscaled_machines
from sbp_tune.study.demand import Nodes
from sbp_tune.study.file import Study
from sbp_tune.study.ledger import metering_place
from sbp_tune.study.placement import ray_nodes
from sbp_tune.study.preflight import load_trainable
from sbp_tune.study.storage import attempts, open_study, put_back, storage_errors
from sbp_tune.study.working import shown

if TYPE_CHECKING:
    from sbp_tune.energy.node_actor import NodeLease
    from sbp_tune.energy.records import Reason
    from sbp_tune.study.nodes import TrialNodes
    from sbp_tune.study.watching import Watching


class Ending(Enum):
    """How a search ended; whatever finished before is kept in any case."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"


def machines_of_ray() -> Nodes:
    """The machines of the Ray that is connected, those included that its autoscaler may yet start."""
    return {**autoscaled_machines(), **ray_nodes()}


def usable_nodes(study: Study, address: str | None) -> TrialNodes:
    """Where trials can run, of the Ray that is connected; InputError where none can. A cluster's nodes are asked."""
    from sbp_tune.study.nodes import TrialNodes

    nodes = TrialNodes(study, asked=address is not None)
    nodes.check()
    return nodes


def run(study: Study, path: Path, nodes: TrialNodes, cross_checked: bool) -> Ending:
    """Runs what is left of a study, on the nodes of the Ray that is connected; for its only writer."""
    from sbp_tune.study.watchers import watched

    with watched(path) as watching:
        ending = _run(study, path, nodes, cross_checked, watching)
        watching.close(ending.value)
    return ending


def _run(study: Study, path: Path, nodes: TrialNodes, cross_checked: bool, watching: Watching) -> Ending:
    import ray.tune

    from sbp_tune.energy.node_actor import NodeLease
    from sbp_tune.study.blocks import BlockSearcher
    from sbp_tune.study.budget_keeper import BudgetKeeper
    from sbp_tune.study.checkpoints import RAY, UnsavedEpochs, keeping_checkpoints
    from sbp_tune.study.cross_check import cross_check
    from sbp_tune.study.leases import LeaseEnder
    from sbp_tune.study.placed import placed
    from sbp_tune.study.progress import Progress
    from sbp_tune.study.ray_errors import understand_lost_workers
    from sbp_tune.study.recorder import Recorder
    from sbp_tune.study.schedulers import make_scheduler
    from sbp_tune.study.searcher import OptunaSearcher
    from sbp_tune.study.timeouts import EpochWatch, kill_worker
    from sbp_tune.study.watchers import begin
    from sbp_tune.study.worker_log import logged

    file, interrupted = study.file, False
    metered = file.simulate is None  # what a simulation itself uses is no part of what it is about

    def interrupt(*_: Any) -> None:
        # Ray stops after the present step on SIGUSR1 as on its own SIGINT, but does not say afterwards
        # that it did.
        nonlocal interrupted
        interrupted = True
        searcher.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C does not wait
        signal.raise_signal(signal.SIGUSR1)

    lease = NodeLease(metering_place(path), None, 0, file.energy, {}, 0)
    confirm = file.confirm
    labels = None if confirm is None else [f"(point {run.point}, seed {run.seed})" for run in confirm.runs]
    recorder, progress = Recorder(study, path, interrupt, nodes), Progress(path, study.total_trials, labels)

    def say(kind: str) -> Callable[[str], None]:
        def line_of(line: str) -> None:
            progress.say(line)
            watching.say(kind, line)

        return line_of

    nodes.tell(path, say("nodes"))
    unsaved = UnsavedEpochs(path, say("checkpoints"))
    budget = BudgetKeeper(study, path, say("budget"))
    scheduler = make_scheduler(study, path)
    searcher = (
        OptunaSearcher(study, path, budget.admits, nodes, scheduler)
        if confirm is None
        else BlockSearcher(study, path, confirm, nodes)
    )
    limit_s = study.resources.epoch_timeout_s
    watches = [] if limit_s is None else [EpochWatch(limit_s, kill_worker)]
    understand_lost_workers()
    tuner = ray.tune.Tuner(
        placed(keeping_checkpoints(logged(load_trainable(study.trainable)), path), study),
        tune_config=ray.tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,  # the searcher knows when all are proposed, however often the study was resumed
            max_concurrent_trials=study.file.search.concurrent or study.total_trials,  # at most: the searcher knows
            reuse_actors=True,  # importing torch costs seconds a process
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=ray.tune.RunConfig(
            name=RAY,
            storage_path=str(path.resolve()),
            callbacks=[*watches, recorder, progress, watching, *([LeaseEnder()] if metered else []), unsaved],
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
            begin(watching, study, path, nodes.room(), kwh=lambda: budget.kwh)
            budget.begin()
            if metered:
                lease.start()
            try:
                with cross_check(path, file.energy, node) if cross_checked and metered else nullcontext():
                    tuner.fit()
            finally:
                if metered:
                    problems = _end_metering(lease, "stopped" if interrupted else "finished", metering_place(path))
            budget.end()
    finally:
        progress.close()
    if searcher.ended_early is not None:
        problems.append(searcher.ended_early)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
        watching.say("warning", problem)
    if isinstance(recorder.stopped_by, InputError):
        raise InputError([*recorder.stopped_by.problems, _go_on(path)])
    if recorder.stopped_by is not None:
        raise SbpTuneError(f"{recorder.stopped_by}\n{_go_on(path)}")
    if interrupted:
        return Ending.INTERRUPTED
    _settle_stopped(study, path)
    return Ending.FINISHED


@contextmanager
def told_how_to_go_on(path: Path) -> Iterator[None]:
    """A disk or storage that fails under a study, as two lines: what failed, and how to go on."""
    try:
        with storage_errors(path):
            yield
    except StorageError as error:
        raise SbpTuneError(f"{error}\n{_go_on(path)}") from error
    except OSError as error:
        raise SbpTuneError(f"{error.filename or path}: {error.strerror or error}\n{_go_on(path)}") from error


def _go_on(path: Path) -> str:
    study = shown(path)
    return f"{study}: stopped; after mending it, go on with `sbp-tune resume {shlex.quote(study)}`"


def _end_metering(lease: NodeLease, reason: Reason, place: str) -> list[str]:
    """Ends the driver's lease and the meters; what went wrong. Never an error: that would hide the search's own."""
    from ray.exceptions import RayError

    from sbp_tune.energy.node_actor import stop_meters

    problems: dict[str, None] = {}
    try:
        lease.stop(reason)
    except SbpTuneError as error:
        problems[str(error)] = None
    try:
        problems |= dict.fromkeys(stop_meters(place))
    except (RayError, RuntimeError, OSError) as error:  # no Ray any more, say
        problems[f"the energy meters could not be stopped: {error}"] = None
    return list(problems)


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
