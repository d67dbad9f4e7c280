"""Who competes in a regime, how each is tuned, and the runs that count."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from benchmarks.frontier.jobs import Log, Result
from sbp_tune.files import read_yaml
from sbp_tune.study.space import Space
from sbp_tune.study.space_parser import parse_space

FRACTIONS = (0.25, 0.4, 0.5, 0.75, 1.0)  # of the epochs, for the dense control
TUNING_SEED = 10_000  # of no run that counts


@dataclass(frozen=True, eq=False)
class Entry:
    """An estimator with what is free to tune, or the dense control at a fraction of the epochs, in a regime."""

    regime: str
    name: str
    base: dict[str, Any]  # TrainConfig of the regime, lr a domain
    sparsity: dict[str, Any]
    fraction: float = 1.0

    @property
    def is_control(self) -> bool:
        return self.name.startswith("dense")

    @cached_property
    def space(self) -> Space:
        tree = {**self.base, "epochs": round(self.fraction * self.base["epochs"]), "sparsity": self.sparsity}
        return parse_space(tree, f"{self.regime} {self.name}")


def entries(regime: str, base: dict[str, Any], chosen: list[str] | None = None) -> list[Entry]:
    """The dense controls, then every arm of arms.yaml, or those named."""
    controls = [
        Entry(regime, f"dense {round(100 * fraction)} %", base, {"estimator": "dense"}, fraction)
        for fraction in FRACTIONS
    ]
    arms = read_yaml(Path(__file__).with_name("arms.yaml"))
    return controls + [
        Entry(regime, name, base, {"auto_dense": False, **arms[name]}) for name in arms if not chosen or name in chosen
    ]


Curve = list[tuple[float, float]]
"""Cost and validation accuracy of the tuned controls, by cost."""


def tune(entry: Entry, trials: int, curve: Curve, log: Path) -> tuple[dict[str, Any], Result]:
    """The best of `trials` points by validation accuracy above the control's of the same FLOPs, and its run.

    The first point is the middle of every domain; the others are TPE's. For a control the curve is empty.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=8))
    study.enqueue_trial(entry.space.optuna_parameters(entry.space.point({})))
    best: tuple[float, dict[str, Any], Result] | None = None
    for _ in range(trials):
        trial = study.ask()
        point = entry.space.suggest(trial)
        result = Log(log).run(seeded(entry, point, TUNING_SEED))
        if result.val_accuracy is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        score = result.val_accuracy - at_cost(curve, result.tflop)
        study.tell(trial, score)
        if best is None or score > best[0]:
            best = score, point, result
    if best is None:
        raise RuntimeError(f"{entry.regime}: {entry.name}: every one of {trials} trials diverged")
    return best[1], best[2]


def final(entry: Entry, point: dict[str, Any], seed: int, log: Path) -> Result:
    """A run that counts, tested on images that no tuning has seen."""
    return Log(log).run(seeded(entry, point, seed), test=True)


def seeded(entry: Entry, point: dict[str, Any], seed: int) -> dict[str, Any]:
    """The config of a point."""
    return entry.space.config({**point, "seed": seed})


def at_cost(curve: Curve, cost: float) -> float:
    """Best accuracy of dense training for at most this cost: straight lines between the controls, level beyond.

    Below the cheapest control: its accuracy, which that cost does not buy. 0 for an empty curve.
    """
    if not curve:
        return 0.0
    front: Curve = []
    for x, y in sorted(curve):
        if y > max((accuracy for _, accuracy in front), default=-math.inf):
            front.append((x, y))
    return float(np.interp(cost, [x for x, _ in front], [y for _, y in front]))
