"""What a study file needs of this machine: data and where they must lie, memory, cores and GPUs; `doctor --study`."""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbp_tune.config import DataConfig
from sbp_tune.errors import InputError
from sbp_tune.study.demand import Nodes
from sbp_tune.study.file import Study
from sbp_tune.study.placement import holds, local_nodes, trials_at_a_time
from sbp_tune.study.preflight import distinct_inputs

if TYPE_CHECKING:
    from rich.console import Console

_SPLITS = ("train", "val", "test")


def study_needs(study: Study, nodes: Nodes | None = None) -> dict[str, Any]:
    """Plain data: `data` (of each data set that a trial can ask for), `placement`, and `problems`, a line each.

    Of data: name, needs (in words), root, problem (None where it is there), fetched (whether a trial would fetch it),
    and where it is there classes, train, val, test (images), bytes (decoded, uint8), decoded (the file that all trials
    of the machine map, None of a set that each trial holds itself), is_decoded, and disk_free (bytes where that file
    lies or would). Nothing is decoded or fetched. nodes: for tests.
    """
    nodes = nodes or local_nodes()
    study = study.placed_on(nodes)
    needs = [_data_needs(config) for config in _data_configs(study)]
    problems = [f"{study.source}: config.{one['problem']}" for one in needs if one["problem"] and not one["fetched"]]
    try:
        at_a_time = trials_at_a_time(study, nodes)
    except InputError as error:
        at_a_time = 0
        problems += error.problems
    for one in needs:
        if one["decoded"] and not one["is_decoded"] and one["bytes"] > one["disk_free"]:
            problems.append(
                f"{study.source}: config.data.root: {one['name']} decodes to {_size(one['bytes'])}, but "
                f"{Path(one['decoded']).parent} has {_size(one['disk_free'])} left; SBP_TUNE_CACHE names another folder"
            )
    device = study.train_config(study.baselines[0] if study.baselines else study.space.point({}))["device"]
    return {
        "data": needs,
        "placement": {
            "trials": study.total_trials,
            "takes": {", ".join(models): str(demand) for demand, models in study.demands().items()},
            "device": device,
            "nodes": {name: {**node, "holds": holds(study, node)} for name, node in nodes.items()},
            "at_a_time": at_a_time,
        },
        "problems": list(dict.fromkeys(problems)),
    }


def print_needs(study: Study, needs: dict[str, Any], memory_gb: float, console: Console) -> None:
    """Shows `study_needs`; memory_gb: of this machine."""
    from rich.table import Table
    from rich.text import Text

    table = Table("Data", "Needs", "State", title=f"{study.file.name}: what it needs", title_justify="left")
    for one in needs["data"]:
        table.add_row(*map(Text, (one["name"], _where(one), _state(one))))
    console.print(table)
    placement = needs["placement"]
    for line in [*(_memory(one, placement["at_a_time"], memory_gb) for one in needs["data"]), *_placement(placement)]:
        if line:
            console.print(Text(line), soft_wrap=True)


def _data_configs(study: Study) -> list[DataConfig]:
    """The data sections of the trials that differ in what is loaded."""
    fed = {"batch_size": 1, "augment": "none", "normalize": "standard"}
    sections = [{**config["data"], **fed} for config in distinct_inputs(study)]
    return [DataConfig.model_validate(one) for one in {json.dumps(section): section for section in sections}.values()]


def _data_needs(config: DataConfig) -> dict[str, Any]:
    from sbp_tune.vision.counting import count_images

    module = importlib.import_module(f"sbp_tune.vision.datasets.{config.name}")
    first_line = (inspect.getdoc(module) or config.name).splitlines()[0]
    found: dict[str, Any] = {
        "name": config.name if config.class_count is None else f"{config.name}, {config.class_count} classes",
        "needs": getattr(module, "NEEDS", first_line),
        "root": config.root,
        "problem": None,
        "fetched": config.download,
        **dict.fromkeys(("classes", *_SPLITS, "bytes", "decoded", "is_decoded", "disk_free")),
    }
    try:
        counts = count_images(config.model_copy(update={"download": False}))
    except InputError as error:
        return {**found, "problem": "; ".join(error.problems)}
    if counts.decoded is not None:
        found["disk_free"] = shutil.disk_usage(_existing(Path(counts.decoded))).free
    images = {part: int(getattr(counts, part).sum()) for part in _SPLITS}
    sizes = {"bytes": counts.bytes, "decoded": counts.decoded, "is_decoded": counts.is_decoded}
    return {**found, **images, **sizes, "classes": len(counts.classes), "fetched": False}


def _existing(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.exists())


def _where(one: dict[str, Any]) -> str:
    return one["needs"] if one["root"] is None else f"{one['needs']}; data.root: {one['root']}"


def _state(one: dict[str, Any]) -> str:
    if one["problem"]:
        return "not there; a trial fetches it" if one["fetched"] else f"not usable: {one['problem']}"
    images = sum(one[part] for part in _SPLITS)
    parts = ", ".join(f"{one[part]:,} {part}" for part in _SPLITS)
    return f"there: {one['classes']} classes, {images:,} images ({parts})"


def _memory(one: dict[str, Any], at_a_time: int, memory_gb: float) -> str:
    if one["bytes"] is None:
        return ""
    size = f"{one['name']}: {_size(one['bytes'])} decoded"
    if one["decoded"] is None:
        total = _size(one["bytes"] * max(1, at_a_time))
        return f"{size}, in the memory of each trial: {total} at a time, of {memory_gb:.1f} GB."
    state = (
        "which is there" if one["is_decoded"] else f"which the first trial writes; {_size(one['disk_free'])} are free"
    )
    return (
        f"{size}, in one file that all trials of a machine share ({one['decoded']}), {state}. "
        f"It runs fast while it fits into memory: {memory_gb:.1f} GB."
    )


def _placement(placement: dict[str, Any]) -> list[str]:
    lines = []
    for name, node in placement["nodes"].items():
        has = f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs"
        lines.append(f"{name}: {has}, holds {node['holds']}")
    takes = placement["takes"]
    asked = ", ".join(text if len(takes) == 1 else f"{text} ({models})" for models, text in takes.items())
    asked = f"A trial takes {asked} and trains on {placement['device']}"
    return [*lines, f"{asked}; {placement['trials']} trials, {placement['at_a_time']} at a time."]


def _size(size: float) -> str:
    return next(
        f"{size / unit:.3g} {name}"
        for name, unit in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
        if size >= unit or unit == 1e3
    )
