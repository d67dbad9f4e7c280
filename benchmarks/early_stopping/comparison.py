"""Hypervolumes of the schedulers at equal energy, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.early_stopping.problems import Problem
from benchmarks.early_stopping.simulation import Search, simulate
from sbp_tune.study.scheduler import MOASHA
from sbp_tune.study.schedulers import new_scheduler
from sbp_tune.study.sections import SearchConfig
from sbp_tune.study.stopping import ranked_objectives

SCHEDULERS: dict[str, tuple[dict[str, Any], float]] = {  # search section; first rung as a share of the longest training
    "none": ({"scheduler": "none"}, 0),
    "asha": ({"scheduler": "asha"}, 0),  # after the first epoch, as by default
    "moasha": ({"scheduler": "moasha"}, 0),
    "moasha, tie 0.2": ({"scheduler": "moasha", "tie": 0.2}, 0),
    "moasha from 1/9": ({"scheduler": "moasha"}, 1 / 9),
    "moasha, promotion": ({"scheduler": "moasha", "halving": "promotion"}, 0),
    "moasha, promotion, tie 0.2": ({"scheduler": "moasha", "halving": "promotion", "tie": 0.2}, 0),
}
FURTHER = 5  # times the largest budget: so far is followed what no early stopping would need
OBJECTIVES = {"val_accuracy": "max", "kwh": "min"}


def compare(
    problem: Problem, sampler: str, seeds: range, budgets: list[float], schedulers: Sequence[str] = tuple(SCHEDULERS)
) -> list[dict[str, Any]]:
    """A row per scheduler, `none` among them, reference point and budget (in longest dense controls).

    hypervolume: mean over the seeds, as a share of that of the problem's best known front, and its standard error.
    gain: mean difference to no early stopping at the same seeds, in percent of the latter's mean, and its 95 %
    interval, by resampling the seeds.
    used: energy in longest dense controls; less than the budget where no trial was left to propose.
    energy: so many times the budget takes it, on average, to come as far without early stopping; not known of a
    sampler that learns, nor where that is beyond FURTHER times the largest budget or the trials.
    """
    largest = max(budgets) * problem.full_run_kwh
    runs = {
        name: [_run(problem, sampler, seed, name, largest * _further(sampler, name)) for seed in seeds]
        for name in schedulers
    }
    rows = []
    for reference in problem.references:
        for budget in budgets:
            plain = _volumes(problem, runs["none"], reference, budget)
            for name in schedulers:
                volumes = _volumes(problem, runs[name], reference, budget)
                gain: dict[str, float | None] = {} if name == "none" else {**_gain(plain, volumes)}
                if name != "none" and sampler == "random":
                    gain["energy"] = _energy(problem, runs["none"], reference, budget, float(volumes.mean()))
                rows.append(
                    {
                        "problem": problem.name,
                        "sampler": sampler,
                        "seeds": len(seeds),
                        "first_seed": seeds.start,
                        "reference": reference,
                        "budget": budget,
                        "scheduler": name,
                        "hypervolume": float(volumes.mean()),
                        "standard_error": float(volumes.std(ddof=1) / np.sqrt(len(seeds))),
                        **dict.fromkeys(("gain", "gain_low", "gain_high", "energy")),
                        **gain,
                        "used": float(np.mean([_used(problem, run, budget) for run in runs[name]])),
                        "trained": float(np.mean([len(_within(problem, run, budget)) for run in runs[name]])),
                        "by_seed": volumes.round(5).tolist(),
                    }
                )
    return rows


def scheduler_of(name: str, longest: int) -> MOASHA | None:
    """The scheduler as `search` makes it, by defaults but for grace_period and tie; of no trial it knows by itself."""
    section, share = SCHEDULERS[name]
    search = SearchConfig.model_validate({**section, "grace_period": max(1, math.ceil(share * longest))})
    objectives = ranked_objectives(search, OBJECTIVES)
    return new_scheduler(search, objectives, lambda trial_id: None, longest) if objectives else None


def _further(sampler: str, scheduler: str) -> int:
    return FURTHER if sampler == "random" and scheduler == "none" else 1


def _run(problem: Problem, sampler: str, seed: int, scheduler: str, kwh: float) -> Search:
    return simulate(problem.samplers[sampler](seed), scheduler_of(scheduler, problem.longest), kwh)


def _within(problem: Problem, run: Search, budget: float) -> list[Any]:
    return run.trained_within(budget * problem.full_run_kwh)


def _used(problem: Problem, run: Search, budget: float) -> float:
    return min(budget, run.spent / problem.full_run_kwh)


def _volumes(problem: Problem, runs: list[Search], reference: str, budget: float) -> NDArray[np.float64]:
    volumes = [problem.hypervolume(_within(problem, run, budget), reference) for run in runs]
    return np.array(volumes) / problem.best[reference]


def _gain(plain: NDArray[np.float64], volumes: NDArray[np.float64]) -> dict[str, float]:
    """Percent of the mean of `plain`; nothing where that is 0."""
    if plain.mean() == 0:
        return {}
    gains = 100 * (volumes - plain) / plain.mean()
    drawn = np.random.default_rng(0).integers(len(gains), size=(10_000, len(gains)))
    low, high = np.quantile(gains[drawn].mean(axis=1), [0.025, 0.975])
    return {"gain": float(gains.mean()), "gain_low": float(low), "gain_high": float(high)}


def _energy(problem: Problem, plain: list[Search], reference: str, budget: float, wanted: float) -> float | None:
    """Energy without early stopping, in budgets, at which the mean hypervolume is the wanted one."""
    end = min(run.spent for run in plain) / problem.full_run_kwh
    energies = np.geomspace(budget / 4, end, 60)
    volumes = [_volumes(problem, plain, reference, energy).mean() for energy in energies]
    return float(np.interp(wanted, volumes, energies) / budget) if volumes[0] < wanted < volumes[-1] else None
