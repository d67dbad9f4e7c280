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

    training: Training

    @classmethod
    def check_input(cls, config: dict[str, Any]) -> None:
        """InputError where the data or the model that a config names cannot be used on this machine."""
        parsed = TrainConfig.model_validate(config)
        check_model(parsed.model)
        if parsed.energy.country is not None:
            intensity(parsed.energy.country)
        load_dataset(parsed.data)

    def setup(self, config: dict[str, Any]) -> None:
        """Takes a config, and perhaps `resume_from`: checkpoints of an earlier attempt, newest first."""
        self.training = Training(TrainConfig.model_validate({k: v for k, v in config.items() if k != "resume_from"}))
        for checkpoint in config.get("resume_from", []):
            try:
                return self.load_checkpoint(checkpoint)
            except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
                # A crash can cut a checkpoint short while it is written; the one before it is whole.
                warnings.warn(f"{checkpoint} cannot be read, going on from an older one: {error}", stacklevel=2)
        return None

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
        if hasattr(self, "training"):
            self.training.close()
            del self.training
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
