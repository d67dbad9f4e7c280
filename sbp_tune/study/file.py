"""The study file: what to train, what to vary, what to compare with, on which machines."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

from sbp_tune.config import ModelConfig, TrainConfig, check_config, validate
from sbp_tune.errors import InputError
from sbp_tune.files import read_yaml
from sbp_tune.section import near
from sbp_tune.study.constraints import Constraint
from sbp_tune.study.demand import Demand, Nodes, demand_of, resolved
from sbp_tune.study.document import set_key, with_absolute_paths
from sbp_tune.study.samplers import resolved_sampler
from sbp_tune.study.sections import ResourcesConfig, SimulateConfig, StudyFile
from sbp_tune.study.space import CASE, MOST_POINTS, Space
from sbp_tune.study.space_parser import check_point, parse_space
from sbp_tune.study.stopping import scheduler_problems
from sbp_tune.study.storage_url import storage_problem

_REPLAY = "trainables.replay:Replay"
_SIMULATED = ResourcesConfig(cpu=1, gpu=0)
_TO_MAXIMISE = ("val_accuracy", "f1", "roc_auc", "precision", "recall")


class Study:
    """A validated study file with its compiled space and the points of its baselines and grid."""

    def __init__(self, document: Any, source: str) -> None:
        self.file = validate(StudyFile, with_absolute_paths(document), source)
        self.source = source
        if "energy" in self.file.config:
            raise InputError(f"{source}: config.energy: belongs at the top level (energy:), the same for all trials")
        self.space: Space = parse_space(self.file.config, source, self.file.cases)
        self.baselines = self._baseline_points()
        self.grid = list((self._runs_every_point() and self.space.points()) or self.space.grid_points())
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
        """What its trials occupy; a simulated one needs no GPU, whatever the file says of the real ones."""
        return self.file.resources if self.file.simulate is None else _SIMULATED

    @property
    def models(self) -> list[str]:
        """Names of the models that its trials can train, each once."""
        points = list(self.baselines)
        if self.file.confirm is None:
            points += [{}, *({CASE: case} for case in self.space.cases)]
        for parameter in self.space.parameters:
            if parameter.key in ("model", "model.name"):
                points += [{parameter.key: value} for value in parameter.domain.samples()]
        return list(dict.fromkeys(_model_of(self.space.config(point)) for point in points))

    def demands(self) -> dict[Demand, list[str]]:
        """All that trials take, each with the models that take it."""
        found: dict[Demand, list[str]] = {}
        for model in self.models:
            found.setdefault(demand_of(self.resources, model), []).append(model)
        return found

    def placed_on(self, nodes: Nodes) -> Study:
        """This study with what its file leaves open of `resources` resolved by the machines; one in which it is, as is.

        A simulation leaves it open: it says nothing of the machines that would train.
        """
        if self.file.simulate is not None:
            return self
        may_use_gpu = self.space.constants.get("device") != "cpu"
        resources = resolved(self.file.resources, nodes, may_use_gpu)
        placed = copy.copy(self)
        placed.file = self.file.model_copy(update={"resources": resources})
        placed.document = {**self.document, "resources": resources.model_dump(mode="json")}
        return placed

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
    def sampler(self) -> str:
        """The sampler that proposes, by name: never auto."""
        return resolved_sampler(self.file.search.sampler, self.space.is_flat, self.proposed_trials)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What a trial must meet to be on the front."""
        return tuple(Constraint.parse(text) for text in self.file.search.constraints)

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
        demand = demand_of(self.file.resources, _model_of(config))
        config.setdefault("cpu_threads", demand.cpu)
        config.setdefault("device", "cuda" if demand.gpu > 0 else "cpu")
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
        if self.file.budget.co2_kg is not None and not self.file.energy.has_place:
            problems.append("budget.co2_kg: needs energy.country (or energy.cloud and energy.cloud_region)")
        if problem := storage_problem(search.storage):
            problems.append(f"search.storage: {problem}")
        problems += self._resources_problems()
        problems += scheduler_problems(search, self.objectives, self.longest_training)
        problems += self._grid_problems()
        if any(constraint.is_relative for constraint in self.constraints):
            first = self.train_config(self.baselines[0])["sparsity"]["estimator"] if self.baselines else "no baseline"
            if first != "dense":
                problems.append(f"search.constraints: `baseline` is the first baseline, a dense one; found {first}")
        if problems:
            raise InputError([f"{self.source}: {problem}" for problem in problems])

    def _resources_problems(self) -> list[str]:
        """What of `resources` no trial can ask for."""
        resources, models = self.file.resources, self.models
        problems = [
            f"resources.models.{name}: no trial trains it; allowed: {', '.join(models)}{near(name, models)}"
            for name in resources.models
            if name not in models and self.file.confirm is None  # which trains some of them
        ]
        if resources.accelerator_type is not None and resources.gpu == 0:
            problems.append(f"resources.accelerator_type: found {resources.accelerator_type}, but a trial has no GPU")
        return problems

    def _grid_problems(self) -> list[str]:
        """Why the sampler `grid` cannot run every point."""
        if not self._runs_every_point() or self.space.points() is not None or not self.space.parameters:
            return []
        if endless := self.space.endless():
            names = ", ".join(f"config.{key}" for key in endless)
            return [f"search.sampler: found grid, which needs choice, grid or int everywhere; {names} has no end"]
        return [f"search.sampler: found grid, but the space has more than {MOST_POINTS:,} points"]

    def _runs_every_point(self) -> bool:
        return self.file.search.sampler == "grid"

    def _is_exhausted_by_grid(self) -> bool:
        return self._runs_every_point() or all(parameter.domain.kind == "grid" for parameter in self.space.parameters)

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
        document["search"]["sampler"] = self.sampler
        return document


def _model_of(config: dict[str, Any]) -> str:
    """The name of a config's model, or the one that it has by default."""
    model = config.get("model")
    return str((model if isinstance(model, dict) else {}).get("name", ModelConfig.model_fields["name"].default))


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
            set_key(document, override)
    if name is not None and isinstance(document, dict):
        document["name"] = name
    if simulate is not None and isinstance(document, dict):
        section = document.get("simulate")
        document["simulate"] = (section if isinstance(section, dict) else {}) | simulate.model_dump(exclude_unset=True)
    return Study(document, source)
