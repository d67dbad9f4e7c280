"""The sections of a study file: their keys, what each may be, and what it means."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from sbp_tune.config import EnergyConfig, Section
from sbp_tune.study.constraints import Constraint
from sbp_tune.study.samplers import SAMPLERS, allowed_samplers

Objective = Literal[
    "val_accuracy", "f1", "roc_auc", "precision", "recall", "val_loss", "kwh", "co2_kg", "train_time_s", "tflop"
]

OF_THE_DEVICE = ("kwh", "co2_kg", "train_time_s")
"""Objectives in which trials on different types of device do not compare."""


def _sampler(name: str) -> str:
    if name not in ("auto", *SAMPLERS) and not re.fullmatch(r"[\w.]+:\w+", name):
        raise ValueError(allowed_samplers(name))
    return name


def _constraint(text: str) -> str:
    Constraint.parse(text)
    return text


class SearchConfig(Section):
    """How trials are proposed."""

    sampler: Annotated[str, AfterValidator(_sampler)] = Field(
        "auto",
        description="auto: gp for a flat space (no conditions) and at most 150 proposed trials, else tpe; grid: every "
        "point of the space, in order; module:Class: an Optuna sampler of yours",
    )
    trials: int = Field(
        32, ge=1, le=100_000, description="proposed trials (for each point of a grid), without baselines"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of the sampler")
    constraints: tuple[Annotated[str, AfterValidator(_constraint)], ...] = Field(
        (),
        strict=False,
        description="what a trial must meet to be on the front, such as 'val_accuracy >= baseline - 0.01' or "
        "'kwh <= 0.8 * baseline'; baseline: that column of the first baseline, a dense one",
    )
    reproposals: int = Field(
        10, ge=0, le=1000, description="how often the sampler is asked again for a config that has run or is running"
    )
    max_failures: int = Field(
        2, ge=0, le=100, description="how often a trial goes on after its worker or node died; its own errors are final"
    )
    scheduler: Literal["none", "moasha", "asha"] = Field(
        "none",
        description="what stops hopeless trials early; moasha: behind in all objectives; asha: in quality alone; "
        "baselines always train to their end",
    )
    halving: Literal["stopping", "promotion"] = Field(
        "stopping",
        description="stopping: a trial goes on until it is behind; promotion: it waits at each rung, and the best of "
        "those that wait go on",
    )
    grace_period: int = Field(1, ge=1, description="epochs before a trial may be stopped")
    reduction_factor: float | None = Field(
        None,
        ge=1.1,
        le=100,
        description="1 of so many goes on at a rung; the next rung is as many times later; none: as makes three rungs",
    )
    brackets: int = Field(1, ge=1, description="groups of trials, each with a later first rung than the one before")
    rank: Literal["epsnet", "crowding"] = Field("epsnet", description="moasha only: who is ahead within a front")
    concurrent: int | None = Field(None, ge=1, description="trials at a time; none: as many as the machines hold")
    storage: str = Field(
        "sqlite",
        description="where trials are kept: sqlite or journal, a file of the study's directory, or a database's URL: "
        "postgresql://USER:${PASSWORD}@HOST/NAME, mysql://...; ${NAME} is an environment variable",
    )
    trackers: tuple[Literal["mlflow", "wandb", "tensorboard"], ...] = Field(
        (),
        strict=False,
        description="who follows the search beside its own files: mlflow (at MLFLOW_TRACKING_URI), wandb "
        "(WANDB_API_KEY, WANDB_PROJECT), tensorboard (in the study's directory); each an extra of this package",
    )
    tie: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="sampler and scheduler are told kwh and co2_kg in steps of this ratio: 0.05 is 5 %, 0 exactly",
    )


class GainConfig(Section):
    """When further trials bring too little."""

    per_kwh: float = Field(
        gt=0, description="hypervolume gained per kWh; 1 is all that can be gained: a perfect network for nothing"
    )
    trials: int = Field(20, ge=1, description="over the last so many trials that have ended")


class BudgetConfig(Section):
    """What ends the search early, counted over all its starts.

    A trial that cannot finish within the budget is not started; when the budget is used up nevertheless, trials
    that run are stopped, and are no points of the front.
    """

    kwh: float | None = Field(None, gt=0, description="kWh of all trials together, also of stopped and failed ones")
    co2_kg: float | None = Field(None, gt=0, description="the same in kg CO2eq; needs the place, under energy")
    hours: float | None = Field(None, gt=0, description="hours of wall time, also in a simulation")
    hypervolume_gain: GainConfig | None = Field(None, description="no trial is started below this gain; none: no such")


def _gpus(number: float | None) -> float | None:
    if number is not None and number > 1 and number != int(number):
        raise ValueError("needs a fraction of one GPU, or a whole number of them")
    return number


Gpus = Annotated[float | None, AfterValidator(_gpus)]


class ModelResources(Section):
    """What a trial of one model occupies, where that differs."""

    cpu: int | None = Field(None, ge=1, description="cores; none: as of the other models")
    gpu: Gpus = Field(None, ge=0, description="GPUs, likewise")


class ResourcesConfig(Section):
    """What one trial occupies. What is left out follows from the machines when the search begins."""

    cpu: int | None = Field(
        None,
        ge=1,
        description="cores, and torch's threads; none: its GPUs' share of them (12 of 48 with 1 of 4), else 1",
    )
    gpu: Gpus = Field(
        None,
        ge=0,
        description="GPUs, a fraction of one (its energy is then split by rule, and so marked), or 0; none: one where "
        "the machines have any",
    )
    accelerator_type: str | None = Field(
        None, min_length=1, description="type of GPU to run on alone, as Ray names it: T4, A10G, A100; none: any"
    )
    models: dict[str, ModelResources] = Field(
        default_factory=dict, description="by model.name: what differs for trials of that model"
    )
    epoch_timeout_s: float | None = Field(
        None,
        gt=0,
        description="seconds that an epoch may take, the first with all setting up; a trial that hangs is killed, and "
        "goes on like one whose worker died (search.max_failures); none: any, as nobody knows yours",
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
