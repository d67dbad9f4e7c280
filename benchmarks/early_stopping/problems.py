"""What the schedulers are compared on: learning curves, who proposes them, and what counts at their ends."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import moocore
import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray

from sbp_tune.config import TrainConfig
from sbp_tune.study.file import Study
from trainables.response import response, true_accuracy, true_kwh

KWH_PER_TFLOP = 1e-5  # of the recorded problem; the same for all trials, so that its size changes no gain


@dataclass(frozen=True)
class Curve:
    """One trial to its end: what it reports after each epoch; accuracy and kWh are what counts once it is trained."""

    config: dict[str, Any]
    rows: list[dict[str, Any]]
    accuracy: float
    kwh: float


class Proposals(Protocol):
    """Trials one after the other."""

    def ask(self) -> Curve | None:
        """The next; None if there is no other."""

    def tell(self, number: int, curve: Curve, is_complete: bool) -> None:
        """How the trial of the number-th ask, from 0, ended."""


class Problem:
    """Proposals by name of sampler, the dense controls, and two fixed reference points (accuracy, kWh).

    controls: the least accuracy and the most kWh of a dense control: what is worse in either is of no use to anybody.
    front: the worst accuracy and kWh on the front of `many` trials, and a tenth of their range further (Ishibuchi et
    al. 2018, doi:10.1162/evco_a_00226).
    """

    def __init__(
        self, name: str, controls: list[Curve], many: list[Curve], samplers: dict[str, Callable[[int], Proposals]]
    ) -> None:
        self.name, self.samplers = name, samplers
        self.longest = max(len(curve.rows) for curve in controls)
        self.full_run_kwh = max(curve.kwh for curve in controls)
        points = _points(many)
        front = points[moocore.is_nondominated(points * [-1, 1])]
        margin = 0.1 * np.ptp(front, axis=0)
        worst = {"controls": _points(controls), "front": front + [[-1, 1]] * margin}
        self.references = {name: (float(at[:, 0].min()), float(at[:, 1].max())) for name, at in worst.items()}
        self.best = {name: self.hypervolume(many, name) for name in self.references}

    def hypervolume(self, curves: list[Curve], reference: str) -> float:
        """Volume in accuracy x kWh that trained trials dominate."""
        accuracy, kwh = self.references[reference]
        return float(moocore.hypervolume(_points(curves) * [-1, 1], ref=[-accuracy, kwh])) if curves else 0.0


def analytic(study: Study, many: int = 5000) -> Problem:
    """The response of trainables/response.py on a study's space; what counts at the end is without noise."""

    def curve(config: dict[str, Any]) -> Curve:
        parsed = TrainConfig.model_validate(config)
        end = parsed.epochs
        return Curve(config, response(parsed), true_accuracy(parsed, end), true_kwh(parsed, end))

    samplers: dict[str, Callable[[int], Proposals]] = {
        "random": lambda seed: Sampled(study, curve, optuna.samplers.RandomSampler(seed)),
        "tpe": lambda seed: Sampled(study, curve, optuna.samplers.TPESampler(seed=seed)),
    }
    others = Sampled(study, curve, optuna.samplers.RandomSampler(2**31))
    controls = [curve(study.train_config(point)) for point in study.baselines]
    return Problem("analytic", controls, [others.ask() for _ in range(many)], samplers)


def recorded(table: Path) -> Problem:
    """The trials of a table of `sbp-tune record`, each proposed once, in an order by the seed.

    Energy is that of the FLOPs that each trial executed: counted ones, so that no neighbour on the machine changes
    them. Accuracy is of one run a config, so what counts at the end carries its noise, under all schedulers alike.
    """
    frame = pd.read_parquet(table)
    curves: dict[str, list[Curve]] = {"baseline": [], "search": []}
    for (kind, _), trial in frame.groupby(["kind", "trial"]):
        rows = [_recorded_row(row, before) for row, before in _with_the_one_before(trial.sort_values("epoch"))]
        config = json.loads(trial["config_json"].iloc[0])
        curves[str(kind)].append(Curve(config, rows, rows[-1]["val_accuracy"], rows[-1]["kwh"]))
    trained = [curve for curve in curves["search"] if len(curve.rows) == curve.config["epochs"]]  # others diverged
    return Problem(table.stem, curves["baseline"], trained, {"random": lambda seed: Shuffled(curves["search"], seed)})


class Sampled:
    """Proposals of an Optuna sampler on a study's space, told as sbp-tune's searcher tells them."""

    def __init__(
        self, study: Study, curve: Callable[[dict[str, Any]], Curve], sampler: optuna.samplers.BaseSampler
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study, self._curve = study, curve
        directions = ["maximize" if mode == "max" else "minimize" for mode in study.objectives.values()]
        self._optuna = optuna.create_study(directions=directions, sampler=sampler)

    def ask(self) -> Curve:
        return self._curve(self._study.train_config(self._study.space.suggest(self._optuna.ask())))

    def tell(self, number: int, curve: Curve, is_complete: bool) -> None:
        if is_complete:
            self._optuna.tell(number, [curve.rows[-1][name] for name in self._study.objectives])
        else:
            self._optuna.tell(number, state=optuna.trial.TrialState.PRUNED)


class Shuffled:
    """Recorded trials in random order, each once."""

    def __init__(self, curves: list[Curve], seed: int) -> None:
        self._rest = random.Random(seed).sample(curves, len(curves))[::-1]

    def ask(self) -> Curve | None:
        return self._rest.pop() if self._rest else None

    def tell(self, number: int, curve: Curve, is_complete: bool) -> None:
        """Nothing: the order is fixed."""


def _points(curves: list[Curve]) -> NDArray[np.float64]:
    return np.array([[curve.accuracy, curve.kwh] for curve in curves])


def _with_the_one_before(trial: pd.DataFrame) -> Iterator[tuple[dict[str, Any], float]]:
    tflop = 0.0
    for row in trial.to_dict("records"):
        yield {str(name): value for name, value in row.items()}, tflop
        tflop = row["tflop"]


def _recorded_row(row: dict[str, Any], tflop_before: float) -> dict[str, Any]:
    """kWh and seconds by executed FLOPs; the unit of time is that of a TFLOP."""
    return {
        "epoch": int(row["epoch"]),
        "val_accuracy": row["val_accuracy"],
        "kwh": row["tflop"] * KWH_PER_TFLOP,
        "epoch_time_s": row["tflop"] - tflop_before,
    }
