"""A trainable that plays curves instead of training: of recorded trials, or of an analytic response.

A whole search then runs in seconds, without a GPU or the data, and without waiting: times are those of the curve.
Its rows say what they are: the device is `simulated`, no energy is measured.
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import ray.tune

from sbp_tune.config import TrainConfig
from sbp_tune.energy.carbon import co2_kg, intensity
from sbp_tune.errors import SbpTuneError
from sbp_tune.replay_table import ReplayTable
from trainables.checkpoints import newest_whole
from trainables.response import metrics_of_test, response

_CHECKPOINT = "replay.json"
_COMPONENTS = ("gpu", "cpu", "ram")
_BESIDE = ("resume_from", "lease", "simulate", "test")


class Replay(ray.tune.Trainable):
    """Stands for the training of a TrainConfig (plain data); every result is a row of design's columns.

    Beside the config: `resume_from` as for the real one; `lease`, which nothing is billed on; `simulate`: what
    plays, a mapping of table (a file of `sbp-tune record`; None: the analytic response), match and searched (see
    `ReplayTable.curve`), and noise (of the response); `test`: whether the last result holds the test metrics: of
    the response, or what the table has of them, else none. The trial ends where the curve does.
    """

    _curve: list[dict[str, Any]] | None = None

    @classmethod
    def check_input(cls, config: dict[str, Any]) -> None:
        """InputError where the table cannot be used; data and networks need not be on this machine."""
        parsed = _parsed(config)
        if parsed.energy.has_place:
            intensity(**parsed.energy.place)
        if table := config.get("simulate", {}).get("table"):
            _table(table)

    def setup(self, config: dict[str, Any]) -> None:
        """Takes a config and what stands beside it; used at the first step, as by the real trainable."""
        self._given, self._epoch = config, 0

    @property
    def curve(self) -> list[dict[str, Any]]:
        """The rows that this trial plays."""
        if self._curve is None:
            self._config = _parsed(self._given)
            self._curve = _curve(self._config, self._given.get("simulate", {}))
            end = len(self._curve)
            reported = self._given.get("lease", {}).get("reported", math.inf)
            state = newest_whole(
                self._given.get("resume_from", []), _read, lambda state: state["epoch"] >= end, reported
            )
            if state is not None:
                self._load(state)
        return self._curve

    def step(self) -> dict[str, Any]:
        if self._epoch >= len(self.curve):
            raise SbpTuneError(f"the curve ends after epoch {self._epoch}")
        row, energy = self.curve[self._epoch], self._config.energy
        self._epoch += 1
        finished = self._epoch == len(self.curve)
        kwh = row.get("kwh")
        return {
            **row,
            **(self._test() if finished and self._given.get("test") else {}),
            "device": "simulated",
            "fully_trained": finished,
            **{f"kwh_{name}_source": "none" if row.get(f"kwh_{name}") is None else "model" for name in _COMPONENTS},
            "kwh_measured_share": 0.0,
            "co2_kg": co2_kg(kwh, pue=energy.pue, **energy.place) if kwh is not None and energy.has_place else None,
            "done": finished,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        state = {"epoch": self._epoch, "model": _network(self._given)}
        Path(checkpoint_dir, _CHECKPOINT).write_text(json.dumps(state), encoding="utf-8")

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self._load(_read(checkpoint_dir))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes a new trial in the same process."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        self._curve = None

    def _test(self) -> dict[str, Any]:
        simulate = self._given.get("simulate", {})
        return {} if simulate.get("table") else metrics_of_test(self._config, simulate.get("noise", 1.0))

    def _load(self, state: dict[str, Any]) -> None:
        if len(self.curve) < state["epoch"] or _network(self._given) != state["model"]:
            raise RuntimeError("the checkpoint is of another network or of a longer run")
        self._epoch = state["epoch"]


def _parsed(given: dict[str, Any]) -> TrainConfig:
    return TrainConfig.model_validate({key: value for key, value in given.items() if key not in _BESIDE})


def _network(given: dict[str, Any]) -> dict[str, Any]:
    return _parsed(given).model.model_dump(mode="json")


def _curve(config: TrainConfig, simulate: dict[str, Any]) -> list[dict[str, Any]]:
    if table := simulate.get("table"):
        recorded = config.model_dump(mode="json")
        return _table(table).curve(recorded, simulate.get("match", "nearest"), simulate.get("searched", {}))
    return response(config, simulate.get("noise", 1.0))


def _table(path: str) -> ReplayTable:
    """A table, read once a process."""
    file = Path(path)
    return _read_table(path, file.stat().st_mtime_ns if file.is_file() else 0)


@functools.lru_cache(maxsize=4)
def _read_table(path: str, changed: int) -> ReplayTable:
    return ReplayTable(path)


def _read(checkpoint: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(Path(checkpoint, _CHECKPOINT).read_text(encoding="utf-8"))
    return state
