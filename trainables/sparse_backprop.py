"""The real trainable: one training run as a Ray Tune trial, one epoch a step."""

from __future__ import annotations

import gc
import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray.tune
import torch

from sbp_tune.config import TrainConfig
from sbp_tune.energy.carbon import intensity
from sbp_tune.energy.node_actor import NodeLease
from sbp_tune.energy.records import Reason
from sbp_tune.energy.trial_lease import trial_lease
from sbp_tune.errors import SbpTuneError
from sbp_tune.numerics import resolve_device
from sbp_tune.training import Training
from sbp_tune.vision import build_model, check_model, load_dataset
from trainables.checkpoints import newest_whole

_CHECKPOINT = "training.pt"
_BESIDE = ("resume_from", "lease", "test")


class SparseBackprop(ray.tune.Trainable):
    """Trains the network of a TrainConfig (plain data); every result is a row of design's columns."""

    most_gpus = 1  # that a trial can train on
    _training: Training | None = None

    @classmethod
    def check_input(cls, config: dict[str, Any]) -> None:
        """InputError where the data or the model that a config names cannot be used on this machine."""
        parsed = TrainConfig.model_validate({key: value for key, value in config.items() if key not in _BESIDE})
        check_model(parsed.model)
        if parsed.energy.has_place:
            intensity(**parsed.energy.place)
        resolve_device(parsed.device)
        data = load_dataset(parsed.data)
        images = data.train.images
        build_model(parsed.model, data.num_classes, images.shape[1], images.shape[-1])  # too small an image, say

    def setup(self, config: dict[str, Any]) -> None:
        """Takes a config, and beside it perhaps what a study adds to it.

        resume_from: checkpoints of an earlier attempt, newest first; lease: by which the node's meter knows the
        trial, a mapping of folder, trial and attempt, and perhaps `reported`, see `newest_whole`; test: whether the
        last result holds the metrics on the test split too. Built when first used: an exception in an actor's
        creation reaches Ray's driver as text only.
        """
        self._given = config

    @property
    def training(self) -> Training:
        """The run of this trial."""
        if self._training is None:
            given = {key: value for key, value in self._given.items() if key not in _BESIDE}
            config = TrainConfig.model_validate(given)
            with self._setting_up(config):
                self._training = Training(config, self._lease(config) if "lease" in self._given else None)
                reported = self._given.get("lease", {}).get("reported", math.inf)
                state = newest_whole(
                    self._given.get("resume_from", []), self._read, lambda state: bool(state["finished"]), reported
                )
                if state is not None:
                    self._training.load_state_dict(state)
        return self._training

    def step(self) -> dict[str, Any]:
        try:
            row = self.training.run_epoch()
            if self.training.finished and self._given.get("test"):
                row |= self.training.test()[0]
        except BaseException:
            with suppress(SbpTuneError):  # a meter that fails as well must not hide why
                self._end("failed")
            raise
        return row | {"done": self.training.finished}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        whole = io.BytesIO()  # first: of a disk that is full torch says something else, and no errno
        torch.save(self.training.state_dict(), whole)
        Path(checkpoint_dir, _CHECKPOINT).write_bytes(whole.getbuffer())

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self.training.load_state_dict(self._read(checkpoint_dir))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes a new trial in the same process: importing torch anew would cost seconds."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        self._end("stopped")

    def _end(self, reason: Reason) -> None:
        """Lets go of the run, and of all that it has on the device: the process may serve another trial."""
        training, self._training = self._training, None
        if training is not None:
            training.close(reason)
        del training
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @contextmanager
    def _setting_up(self, config: TrainConfig) -> Iterator[None]:
        """Bills the block to the search, as what a search needs: a trial's kWh are those of its epochs."""
        if "lease" not in self._given:
            yield
            return
        lease = NodeLease(self._given["lease"]["folder"], None, 0, config.energy, {}, 0)
        lease.start()
        try:
            yield
        except BaseException:
            with suppress(SbpTuneError):  # as above
                lease.stop("failed")
            raise
        lease.stop("finished")

    def _lease(self, config: TrainConfig) -> Callable[[list[str]], NodeLease]:
        """Metering by the node's meter: several trials share the machine."""
        resources = self.trial_resources
        bundle = resources.bundles[0] if resources else None
        return lambda used: trial_lease(self._given["lease"], config.energy, bundle, used, config.cpu_threads or 1)

    def _read(self, checkpoint: str) -> dict[str, Any]:
        state: dict[str, Any] = torch.load(
            Path(checkpoint, _CHECKPOINT), weights_only=True, map_location=self.training.device
        )
        return state
