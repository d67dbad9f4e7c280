"""Runs a study on Ray: a new one, or one that was interrupted."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.files import write_text_atomic, yaml_text
from sbp_tune.study.file import Study, load_study_file
from sbp_tune.study.placement import ray_nodes, trials_at_a_time
from sbp_tune.study.storage import create_study, open_study

# Ray tells its makers about its use unless told not to; read when ray is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray's newer output prints banners whatever the verbosity; ours is in progress.py.
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"


class Ending(Enum):
    """How a search ended; whatever finished before is kept in any case."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"


def search(study: Study, path: Path, address: str | None = None) -> Ending:
    """Runs a new study in a new directory.

    InputError where the directory exists, the data or model cannot be used, or Ray lacks the resources.
    """
    if path.exists() and any(path.iterdir()):
        raise InputError(
            f"{path}: a study of this name exists; continue it with `sbp-tune resume {path}`, or give another --name"
        )
    check_on_this_machine(study, address)
    with connected_ray(address):
        concurrent = trials_at_a_time(study, ray_nodes())
        path.mkdir(parents=True, exist_ok=True)
        with _only_writer(path):
            write_text_atomic(path / "study.yaml", yaml_text(study.document))
            _create_storage(study, path)
            return _run(study, path, concurrent, restored=False)


def resume(path: Path, address: str | None = None) -> Ending:
    """Continues an interrupted study: finished trials stay, running ones go on from their last checkpoint."""
    for needed in ("study.yaml", "study.db"):
        if not (path / needed).is_file():
            raise InputError(f"{path}: not a study directory: it has no {needed}")
    study = load_study_file(path / "study.yaml")
    with _only_writer(path):
        if is_finished(study, path):
            raise InputError(f"{path}: all {study.total_trials} trials of this study have ended; nothing to resume")
        check_on_this_machine(study, address)
        with connected_ray(address):
            from sbp_tune.study.searcher import requeue

            concurrent = trials_at_a_time(study, ray_nodes())
            experiment = _ray_experiment(path)
            requeue(open_study(path), _known_trial_ids(experiment))
            return _run(study, path, concurrent, restored=_can_restore(experiment))


def is_finished(study: Study, path: Path) -> bool:
    """Whether every trial of a study has ended for good."""
    from sbp_tune.study.searcher import is_superseded

    trials = open_study(path).get_trials(deepcopy=False)
    if any(trial.user_attrs.get("bad_input") and not is_superseded(trial) for trial in trials):
        return False
    return sum(trial.state.is_finished() and not is_superseded(trial) for trial in trials) >= study.total_trials


def load_trainable(name: str) -> type:
    """The class that `module:Class` names; modules of the working directory count. InputError where it is none."""
    module_name, class_name = name.split(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        trainable = getattr(import_module(module_name), class_name)
    except ImportError as error:
        raise InputError(f"trainable: found {name}; {module_name} cannot be imported: {error}") from error
    except AttributeError:
        raise InputError(f"trainable: found {name}; {module_name} has no {class_name}") from None
    return trainable


def check_on_this_machine(study: Study, address: str | None) -> None:
    """Lets the trainable look at the baselines' data and models before anything starts.

    Only for a local search: on a cluster the data need not lie where the driver runs.
    """
    check_input = getattr(load_trainable(study.file.trainable), "check_input", None)
    if check_input is None or address is not None:
        return
    problems: dict[str, None] = {}
    for config in distinct_inputs(study):
        try:
            check_input(config)
        except InputError as error:
            problems.update(dict.fromkeys(f"{study.source}: config.{problem}" for problem in error.problems))
    if problems:
        raise InputError(problems)


def distinct_inputs(study: Study) -> list[dict[str, Any]]:
    """Complete configs that differ in data or model: each option of the space once, and the baselines."""
    points = [study.space.point({}), *study.baselines]
    for parameter in study.space.parameters:
        if parameter.key.split(".")[0] in ("data", "model"):
            points += [study.space.point({parameter.key: value}) for value in parameter.domain.samples()]
    distinct: dict[str, dict[str, Any]] = {}
    for point in points:
        config = study.train_config(point)
        distinct.setdefault(json.dumps([config["data"], config["model"]]), config)
    return list(distinct.values())


def _create_storage(study: Study, path: Path) -> None:
    from sbp_tune.study.searcher import enqueue_fixed_points

    storage = create_study(path, study.file.name, study.objectives, {"versions": _versions()})
    enqueue_fixed_points(storage, study)


def _run(study: Study, path: Path, concurrent: int, restored: bool) -> Ending:
    import ray.tune

    from sbp_tune.study.budget import KwhBudget
    from sbp_tune.study.progress import Progress
    from sbp_tune.study.searcher import OptunaSearcher

    file = study.file
    trainable = ray.tune.with_resources(
        load_trainable(file.trainable), {"cpu": file.resources.cpu, "gpu": file.resources.gpu}
    )
    if restored:
        tuner = ray.tune.Tuner.restore(str(_ray_experiment(path)), trainable, resume_unfinished=True)
        # Callbacks and searcher come back from a pickle of the first start; this run has its own.
        tuner._local_tuner._tune_config.search_alg = OptunaSearcher(study, path)
        run_config = tuner._local_tuner._run_config
        progress = Progress(path, study.total_trials)
        run_config.callbacks = [progress]
    else:
        progress = Progress(path, study.total_trials)
        tuner = ray.tune.Tuner(
            trainable,
            tune_config=ray.tune.TuneConfig(
                search_alg=OptunaSearcher(study, path),
                num_samples=-1,  # the searcher knows when all are proposed, however often the study was restored
                max_concurrent_trials=concurrent,
                reuse_actors=True,  # importing torch costs seconds a process
                time_budget_s=None if file.budget.hours is None else file.budget.hours * 3600,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=ray.tune.RunConfig(
                name="ray",
                storage_path=str(path.resolve()),
                callbacks=[progress],
                stop=None if file.budget.kwh is None else KwhBudget(file.budget.kwh),
                checkpoint_config=ray.tune.CheckpointConfig(num_to_keep=1, checkpoint_frequency=1),
                verbose=0,
            ),
        )
    interrupted = False

    def interrupt(*_: Any) -> None:
        # Ray stops after the present step and saves its state on SIGUSR1 as on its own SIGINT, but
        # does not say afterwards that it did.
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C does not wait
        signal.raise_signal(signal.SIGUSR1)

    progress.on_bad_input = interrupt
    with _signals(interrupt):
        tuner.fit()
    progress.close()
    if progress.bad_input:
        raise InputError(
            [*progress.bad_input, f"{path}: stopped; after mending it, go on with `sbp-tune resume {path}`"]
        )
    return Ending.INTERRUPTED if interrupted else Ending.FINISHED


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


@contextmanager
def connected_ray(address: str | None) -> Iterator[None]:
    """A Ray to run on: the cluster at an address, or one of this machine's own; InputError where none answers."""
    import ray

    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():  # somebody's notebook, or a test: theirs to end
        yield
        return
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 256 * 2**20} if address is None else {}
    try:
        ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **local)
    except ConnectionError as error:
        raise InputError(f"--address {address}: no Ray cluster answers there: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _only_writer(path: Path) -> Iterator[None]:
    """Refuses a second driver on the same study; the lock goes with the process, however it ends."""
    with (path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SbpTuneError(f"{path}: another process runs this study at present") from None
        yield


def _ray_experiment(path: Path) -> Path:
    return path.resolve() / "ray"


def _can_restore(experiment: Path) -> bool:
    return (experiment / "tuner.pkl").is_file() and any(experiment.glob("experiment_state-*.json"))


def _known_trial_ids(experiment: Path) -> set[str]:
    """Ids of the trials in Ray's newest saved state; those asked for after it are not known to Ray any more."""
    states = sorted(experiment.glob("experiment_state-*.json"))
    if not states:
        return set()
    data = json.loads(states[-1].read_text(encoding="utf-8"))
    return {json.loads(trial)["trial_id"] for trial, _ in data["trial_data"]}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("sbp-tune", "torch", "torchvision", "ray", "optuna"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that was not installed
            versions[package] = "unknown"
    return versions
