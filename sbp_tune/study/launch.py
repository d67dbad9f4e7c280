"""Runs a study on Ray: a new one, or one that was interrupted."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import TrialState

from sbp_tune.errors import InputError
from sbp_tune.files import read_yaml, write_text_atomic, yaml_text
from sbp_tune.study.duplicates import counts
from sbp_tune.study.epochs import merged_rows, read_rows
from sbp_tune.study.file import Study, load_study_file
from sbp_tune.study.lock import only_writer
from sbp_tune.study.placement import check_one_type, compares_devices, gpu_types, local_nodes
from sbp_tune.study.preflight import check_on_this_machine
from sbp_tune.study.ray_session import cluster_in_use, connected_ray
from sbp_tune.study.running import Ending, machines_of_ray, run, told_how_to_go_on, usable_nodes
from sbp_tune.study.storage import (
    attempts,
    check_directory,
    create_study,
    drop_study,
    mend,
    open_study,
    storage_errors,
)
from sbp_tune.study.versions import versions

_CAN_CHANGE = ("budget.", "resources.accelerator_type=", "search.trackers=")  # of a study that has begun
_GPU_TYPES = "gpu_types"  # attribute of a study: types of GPUs on which it began


def search(study: Study, path: Path, address: str | None = None, cross_checked: bool = False) -> Ending:
    """Runs a new study in a new directory; cross_checked: with CodeCarbon beside the ledger.

    InputError where the directory exists, the data or model cannot be used, or Ray lacks the resources.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise _exists(path)
    address = cluster_in_use(address)
    if address is None:
        study = study.placed_on(local_nodes())
    check_on_this_machine(study, address)
    with connected_ray(address):
        machines = machines_of_ray()
        study = study.placed_on(machines)
        check_one_type(study, machines)
        nodes = usable_nodes(study, address)
        _create(study, path, gpu_types(study, machines))
        with only_writer(path), told_how_to_go_on(path):
            return run(study, path, nodes, cross_checked)


def resume(
    path: Path, address: str | None = None, cross_checked: bool = False, overrides: Sequence[str] = ()
) -> Ending:
    """Continues an interrupted study: finished trials stay, unfinished ones go on from their last checkpoint.

    overrides: `budget.key=YAML value`, resources.accelerator_type or search.trackers, which the study keeps; nothing
    else of it can change.

    Ray's own restore is not used: after a kill its saved state can be older than the checkpoints that are
    left. The study's storage is told of every ending at once, and is never older than what ended.
    """
    check_directory(path)
    if others := [override for override in overrides if not override.startswith(_CAN_CHANGE)]:
        again = (
            "only budget.KEY, resources.accelerator_type and search.trackers can be set for a study that has begun; "
            f"`sbp-tune search {path}/study.yaml` makes another"
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

    with told_how_to_go_on(path):
        if ended_trials(study, path) >= study.total_trials:
            raise InputError(f"{path}: all {study.total_trials} trials of this study have ended; nothing to resume")
        if why := BudgetKeeper(study, path).used_up():
            again = f"`sbp-tune resume {path} --set budget.KEY=VALUE` raises it"
            raise InputError(f"{path}: its budget is used up: {why}; {again}")
        address = cluster_in_use(address)
        check_on_this_machine(study, address)
        with connected_ray(address):
            machines = machines_of_ray()
            study = study.placed_on(machines)
            check_one_type(study, machines)
            nodes = usable_nodes(study, address)
            _warn_of_other_gpus(study, path, gpu_types(study, machines))
            _store(study, path)
            return run(study, path, nodes, cross_checked)


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


def _warn_of_other_gpus(study: Study, path: Path, types: list[str]) -> None:
    before = open_study(path).user_attrs.get(_GPU_TYPES) or types
    if set(before) != set(types) and compares_devices(study):
        now = ", ".join(types) or "none"
        print(
            f"warning: {path} began on GPUs of type {', '.join(before)} and goes on with {now}: their kWh and times "
            "do not compare, and the sampler learns from both; `sbp-tune report --device` shows each by itself",
            file=sys.stderr,
        )


def _create(study: Study, path: Path, types: Sequence[str] = ()) -> None:
    """Makes the study directory in one step, with all that `resume` needs; types: of GPUs that it begins on."""
    from sbp_tune.study.searcher import enqueue_fixed_points

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        made = Path(folder) / path.name
        made.mkdir()
        write_text_atomic(made / "study.yaml", yaml_text(study.document))
        storage = create_study(
            made, study.file.name, study.objectives, {"versions": versions(), _GPU_TYPES: list(types)}
        )
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


def _settle_ended(study: Study, path: Path) -> None:
    """Tells the storage of trials that were trained, or that the scheduler had stopped, just when the driver died."""
    from sbp_tune.study.schedulers import make_scheduler
    from sbp_tune.study.settle import settle

    storage, scheduler = open_study(path), make_scheduler(study, path)
    stopped = scheduler.stopped if scheduler is not None else {}
    unfinished = storage.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    log = read_rows(path, {attempt for trial in unfinished for attempt in attempts(trial)})
    for trial in unfinished:
        rows = merged_rows(log, attempts(trial))
        if rows and (rows[-1].get("fully_trained") or trial.number in stopped):
            settle(storage, trial.number, rows[-1], study)
