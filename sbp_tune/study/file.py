"""The study file: what to train, what to vary, what to compare with, on which machines."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sbp_tune.config import EnergyConfig, Section, TrainConfig, check_config, validate
from sbp_tune.errors import InputError
from sbp_tune.files import parse_yaml, read_yaml
from sbp_tune.study.space import Space
from sbp_tune.study.space_parser import check_point, parse_space
from sbp_tune.study.stopping import scheduler_problems

Objective = Literal[
    "val_accuracy", "f1", "roc_auc", "precision", "recall", "val_loss", "kwh", "co2_kg", "train_time_s", "tflop"
]


_PATHS = ("data.root", "model.weights", "simulate.table")
_REPLAY = "trainables.replay:Replay"
_TO_MAXIMISE = ("val_accuracy", "f1", "roc_auc", "precision", "recall")


class SearchConfig(Section):
    """How trials are proposed."""

    sampler: Literal["tpe", "random", "nsga2"] = Field("tpe", description="Optuna's sampler")
    trials: int = Field(
        32, ge=1, le=100_000, description="proposed trials (for each point of a grid), without baselines"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of the sampler")
    scheduler: Literal["none", "moasha", "asha"] = Field(
        "none",
        description="what stops hopeless trials early; moasha: behind in all objectives; asha: in quality alone; "
        "baselines always train to their end",
    )
    grace_period: int = Field(1, ge=1, description="epochs before a trial may be stopped")
    reduction_factor: float = Field(
        3.0, ge=1.1, le=100, description="1 of so many goes on at a rung; the next rung is as many times later"
    )
    brackets: int = Field(1, ge=1, description="groups of trials, each with a later first rung than the one before")
    rank: Literal["epsnet", "crowding"] = Field("epsnet", description="moasha only: who is ahead within a front")
    concurrent: int | None = Field(None, ge=1, description="trials at a time; none: as many as the machines hold")
    tie: float = Field(
        0.0, ge=0, lt=1, description="the sampler is told kwh and co2_kg in steps of this ratio: 0.05 is 5 %, 0 exactly"
    )


class BudgetConfig(Section):
    """What ends the search early; trials that run then are stopped and kept out of the front."""

    kwh: float | None = Field(None, gt=0, description="kWh of all trials together")
    hours: float | None = Field(None, gt=0, description="hours of wall time from each start or resume")


class ResourcesConfig(Section):
    """What one trial occupies."""

    cpu: int = Field(1, ge=1, description="cores, and torch's threads")
    gpu: float = Field(
        0, ge=0, le=1, description="a GPU, a fraction of one (its energy is then split by rule, and so marked), or none"
    )


class SimulateConfig(Section):
    """Curves played instead of training; nothing is trained and no energy is measured."""

    table: str | None = Field(
        None, min_length=1, description="recorded trials, of `sbp-tune record`; none: an analytic response"
    )
    match: Literal["nearest", "exact"] = Field("nearest", description="which recorded trial stands for a config")
    noise: float = Field(1.0, ge=0, le=100, description="factor on the noise of the analytic response")


class ConfirmedRun(Section):
    """One run of a confirmation: which of its points, with which seed."""

    point: str
    seed: int = Field(ge=0, lt=2**32)


class ConfirmConfig(Section):
    """A confirmation, which `sbp-tune confirm` writes: a fixed list of runs, in place of a search.

    Its runs are the study's baselines, whole configs in the order in which they begin; each is tested at its end.
    """

    points: dict[str, dict[str, Any]] = Field(
        min_length=1, description="by the number of a trial of the search, its config"
    )
    runs: list[ConfirmedRun] = Field(min_length=1, description="in their order, those of one seed beside each other")
    searched: dict[str, Any] = Field(description="domains of the search, by which `simulate.match: nearest` goes")

    def config_of(self, run: ConfirmedRun) -> dict[str, Any]:
        """The complete config of a run."""
        return {**self.points[run.point], "seed": run.seed}


class StudyFile(Section):
    """A study file as read, before its space is compiled."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="of the study and its directory")
    trainable: str = Field("trainables.sparse_backprop:SparseBackprop", pattern=r"^[\w.]+:\w+$")
    objectives: dict[Objective, Literal["max", "min"]] = Field({"val_accuracy": "max", "kwh": "min"}, min_length=1)
    config: dict[str, Any]
    cases: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="by name: settings that go together, as of each data set; all of them run"
    )
    baselines: list[dict[str, Any]] = Field(default_factory=list)
    search: SearchConfig = SearchConfig()
    budget: BudgetConfig = BudgetConfig()
    resources: ResourcesConfig = ResourcesConfig()
    energy: EnergyConfig = EnergyConfig()
    simulate: SimulateConfig | None = Field(None, description="of every trial; none: they train")
    confirm: ConfirmConfig | None = Field(None, description="written by `sbp-tune confirm` alone")


class Study:
    """A validated study file with its compiled space and the points of its baselines and grid."""

    def __init__(self, document: Any, source: str) -> None:
        self.file = validate(StudyFile, _with_absolute_paths(document), source)
        self.source = source
        if "energy" in self.file.config:
            raise InputError(f"{source}: config.energy: belongs at the top level (energy:), the same for all trials")
        self.space: Space = parse_space(self.file.config, source, self.file.cases)
        self.baselines = self._baseline_points()
        self.grid = list(self.space.grid_points())
        self._check()
        self.document = self._resolved_document()

    @property
    def objectives(self) -> dict[str, str]:
        """Column to direction, max or min."""
        return {str(name): str(mode) for name, mode in self.file.objectives.items()}

    @property
    def trainable(self) -> str:
        """Which class runs the trials, `module:Class`."""
        return self.file.trainable if self.file.simulate is None else _REPLAY

    @property
    def resources(self) -> ResourcesConfig:
        """What one trial occupies; a simulated one needs no GPU, whatever the file says of the real one."""
        return self.file.resources if self.file.simulate is None else ResourcesConfig()

    @property
    def beside_config(self) -> dict[str, Any]:
        """What a trial is told beside its config."""
        beside: dict[str, Any] = {} if self.file.confirm is None else {"test": True}
        if self.file.simulate is not None:
            beside["simulate"] = {**self.file.simulate.model_dump(), "searched": self.searched}
        return beside

    @property
    def searched(self) -> dict[str, Any]:
        """Searched dotted key to the ends of its range, None for a list of options; of a confirmation its search's."""
        if self.file.confirm is not None:
            return self.file.confirm.searched
        return {parameter.key: parameter.domain.bounds() for parameter in self.space.parameters}

    @property
    def proposed_trials(self) -> int:
        """Trials besides the baselines."""
        if self.file.confirm is not None:
            return 0
        return len(self.grid) * (1 if self._is_exhausted_by_grid() else self.file.search.trials)

    @property
    def total_trials(self) -> int:
        """All trials, baselines included."""
        return self.proposed_trials + len(self.baselines)

    @property
    def longest_training(self) -> int:
        """Epochs of the longest trial that the search can propose."""
        default = self.space.constants.get("epochs", TrainConfig.model_fields["epochs"].default)
        fixed = max(case.get("epochs", default) for case in self.space.cases.values() or [{}])
        searched = [parameter.domain.samples() for parameter in self.space.parameters if parameter.key == "epochs"]
        return int(max(searched[0])) if searched else int(fixed)

    def train_config(self, values: dict[str, Any]) -> dict[str, Any]:
        """The complete config of a trial at a point of the space, plain data."""
        config = self.space.config(values)
        config["energy"] = self.file.energy.model_dump()
        config.setdefault("cpu_threads", self.file.resources.cpu)
        config.setdefault("device", "cuda" if self.file.resources.gpu > 0 else "cpu")
        return check_config(config, self.source, "config").model_dump(mode="json")

    def _check(self) -> None:
        """What only the whole file can tell."""
        search, problems = self.file.search, []
        if self._is_exhausted_by_grid() and "trials" in search.model_fields_set and search.trials > 1:
            problems.append(
                f"search.trials: found {search.trials}, but nothing is left to propose: every parameter is fixed or a "
                "grid, which runs once; leave trials out, or repeat with a grid over seed"
            )
        for name, mode in self.file.objectives.items():
            if mode != (natural := "max" if name in _TO_MAXIMISE else "min"):
                problems.append(f"objectives.{name}: found {mode}; a search for the worst is a mistake: {natural}")
        if "co2_kg" in self.file.objectives and not self.file.energy.has_place:
            problems.append("objectives.co2_kg: needs energy.country (or energy.cloud and energy.cloud_region)")
        problems += scheduler_problems(search, self.objectives, self.longest_training)
        if problems:
            raise InputError([f"{self.source}: {problem}" for problem in problems])

    def _is_exhausted_by_grid(self) -> bool:
        return all(parameter.domain.kind == "grid" for parameter in self.space.parameters)

    def _baseline_points(self) -> list[dict[str, Any]]:
        if (confirm := self.file.confirm) is not None:
            return [confirm.config_of(run) for run in confirm.runs]  # checked when its trial was proposed
        points, problems = [], []
        for index, overrides in enumerate(self.file.baselines):
            where = f"baselines.{index}"
            try:
                points.append(check_point(self.space, overrides, self.source, where))
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(problems)
        return points

    def _resolved_document(self) -> dict[str, Any]:
        """Plain data of the whole study, defaults written out: what study.yaml keeps."""
        document = self.file.model_dump(mode="json")
        document["search"]["trials"] = max(1, math.ceil(self.proposed_trials / len(self.grid)))
        return document


def load_study_file(
    path: Path | str,
    overrides: list[str] | None = None,
    name: str | None = None,
    simulate: SimulateConfig | None = None,
) -> Study:
    """Reads and checks a study file; `overrides` are `dotted.key=YAML value`. InputError lists every problem.

    simulate: what the file's own section is set to, key by key, where it is given.
    """
    document = read_yaml(path)
    source = str(path)
    if overrides:
        if not isinstance(document, dict):
            validate(StudyFile, document, source)
        for override in overrides:
            _set(document, override)
    if name is not None and isinstance(document, dict):
        document["name"] = name
    if simulate is not None and isinstance(document, dict):
        section = document.get("simulate")
        document["simulate"] = (section if isinstance(section, dict) else {}) | simulate.model_dump(exclude_unset=True)
    return Study(document, source)


def _set(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    source = f"--set {override}"
    if not equals or not key or any(not part for part in key.split(".")):
        raise InputError(f"{source}: needs key=value with a dotted key of the study file, as in search.trials=8")
    value = parse_yaml(text, source)
    *parents, leaf = key.split(".")
    node: Any = document
    for depth, part in enumerate(parents):
        child = node[_index(node, part, source)] if isinstance(node, list) else node.setdefault(part, {})
        if not isinstance(child, dict | list):
            raise InputError(f"{source}: {'.'.join(parents[: depth + 1])} is {child!r}, not a section")
        node = child
    node[_index(node, leaf, source) if isinstance(node, list) else leaf] = value


def _index(node: list[Any], part: str, source: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise InputError(f"{source}: {part} is not one of the list's places 0 to {len(node) - 1}")
    return int(part)


def _with_absolute_paths(node: Any, section: str = "") -> Any:
    """Every path of a config absolute: trials run in folders of their own, and `resume` perhaps from elsewhere."""
    if isinstance(node, list):
        return [_with_absolute_paths(item, section) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _absolute(value)
        if key in _PATHS or f"{section}.{key}" in _PATHS
        else _with_absolute_paths(value, section if key in ("choice", "grid") else key)
        for key, value in node.items()
    }


def _absolute(path: Any) -> Any:
    if isinstance(path, str):
        return str(Path(path).expanduser().absolute())
    if isinstance(path, dict):  # a domain
        return {kind: [_absolute(option) for option in v] if isinstance(v, list) else v for kind, v in path.items()}
    return path
