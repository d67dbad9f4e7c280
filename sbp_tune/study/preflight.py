"""What is looked at before anything starts: the trainable, the data and the models."""

from __future__ import annotations

import json
import math
from importlib import import_module
from typing import Any

from sbp_tune.errors import InputError
from sbp_tune.study.file import Study
from sbp_tune.study.placement import local_nodes, trials_at_a_time
from sbp_tune.study.samplers import make_sampler
from sbp_tune.study.space import CASE
from sbp_tune.study.trackers import check_trackers


def load_trainable(name: str) -> type:
    """The class that `module:Class` names; InputError where it is none."""
    module_name, class_name = name.split(":")
    try:
        trainable = getattr(import_module(module_name), class_name)
    except AttributeError:
        raise InputError(f"trainable: found {name}; {module_name} has no {class_name}") from None
    except Exception as error:  # somebody's module may raise anything
        raise InputError(f"trainable: found {name}; {module_name} cannot be imported: {error}") from error
    import ray.tune

    if not (isinstance(trainable, type) and issubclass(trainable, ray.tune.Trainable)):
        raise InputError(f"trainable: found {name}; needs a class derived from ray.tune.Trainable")
    return trainable


def check_on_this_machine(study: Study, address: str | None) -> None:
    """Looks whether a trial fits here, and lets the trainable look at data and models, before anything starts.

    That only for a local search: on a cluster the data need not lie where the driver runs.
    """
    trainable = load_trainable(study.trainable)
    most = getattr(trainable, "most_gpus", math.inf)
    if (gpus := max((demand.gpu for demand in study.demands()), default=0)) > most:
        raise InputError(
            f"{study.source}: resources.gpu: found {gpus:g}, but {study.trainable} trains on {most} GPU; more are for "
            "a trainable of your own"
        )
    check_trackers(study.file.search.trackers)
    try:
        make_sampler(study.sampler, study.file.search.seed, study.space)  # somebody's own may not be there
    except InputError as error:
        raise InputError(f"{study.source}: {problem}" for problem in error.problems) from error
    if address is not None:
        return
    trials_at_a_time(study, local_nodes())
    check_input = getattr(trainable, "check_input", None)
    if check_input is None:
        return
    problems: dict[str, None] = {}
    for config in distinct_inputs(study):
        try:
            check_input({**config, **study.beside_config})
        except InputError as error:
            problems.update(dict.fromkeys(f"{study.source}: config.{problem}" for problem in error.problems))
    if problems:
        raise InputError(problems)


def distinct_inputs(study: Study) -> list[dict[str, Any]]:
    """Complete configs that differ in data or model: each option of the space once, and the baselines."""
    points = [*([study.space.point({})] if study.proposed_trials else []), *study.baselines]
    for parameter in study.space.parameters:
        if parameter.key.split(".")[0] in ("data", "model", CASE):
            points += [study.space.point({parameter.key: value}) for value in parameter.domain.samples()]
    distinct: dict[str, dict[str, Any]] = {}
    for point in points:
        config = study.train_config(point)
        distinct.setdefault(json.dumps([config["data"], config["model"]]), config)
    return list(distinct.values())
