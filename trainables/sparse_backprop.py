"""The real trainable: one training run as a Ray Tune trial, one epoch a step."""

from __future__ import annotations

import gc
import pickle
import warnings
from pathlib import Path
from typing import Any

import ray.tune
import torch

from sbp_tune.config import TrainConfig
from sbp_tune.energy.carbon import intensity
from sbp_tune.training import Training
from sbp_tune.vision import check_model, load_dataset

_CHECKPOINT = "training.pt"


class SparseBackprop(ray.tune.Trainable):
    """Trains the network of a TrainConfig (plain data); every result is a row of design's columns."""

    _training: Training | None = None

    @classmethod
    def check_input(cls, config: dict[str, Any]) -> None:
        """InputError where the data or the model that a config names cannot be used on this machine."""
        parsed = TrainConfig.model_validate(config)
        check_model(parsed.model)
        if parsed.energy.country is not None:
            intensity(parsed.energy.country)
        load_dataset(parsed.data)

    def setup(self, config: dict[str, Any]) -> None:
        """Takes a config, and perhaps `resume_from`: checkpoints of an earlier attempt, newest first.

        Built when first used: an exception in an actor's creation reaches Ray's driver as text only.
        """
        self._given = config

    @property
    def training(self) -> Training:
        """The run of this trial."""
        if self._training is None:
            config = {key: value for key, value in self._given.items() if key != "resume_from"}
            self._training = Training(TrainConfig.model_validate(config))
            self._load_newest(self._given.get("resume_from", []))
        return self._training

    def step(self) -> dict[str, Any]:
        row = self.training.run_epoch()
        return row | {"done": self.training.finished}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        torch.save(self.training.state_dict(), Path(checkpoint_dir, _CHECKPOINT))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        state = torch.load(Path(checkpoint_dir, _CHECKPOINT), weights_only=True, map_location=self.training.device)
        self.training.load_state_dict(state)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes a new trial in the same process: importing torch anew would cost seconds."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        if self._training is not None:
            self._training.close()
            self._training = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _load_newest(self, checkpoints: list[str]) -> None:
        for checkpoint in checkpoints:
            try:
                return self.load_checkpoint(checkpoint)
            except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
                # A crash can cut a checkpoint short while it is written; the one before it is whole.
                warnings.warn(f"{checkpoint} cannot be read, going on from an older one: {error}", stacklevel=2)
        return None
