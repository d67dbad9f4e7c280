"""A trainable of one's own that holds several GPUs, trains nothing, and says what it was given."""

from __future__ import annotations

import os
import time
from typing import Any

import ray
from fake_gpus import fake_nvml

from sbp_tune.config import EnergyConfig
from sbp_tune.energy import devices, trial_lease

if ray._private.worker.global_worker.mode == ray.WORKER_MODE:  # the driver's process is other tests' too
    devices.system_nvml = trial_lease.system_nvml = fake_nvml


class SeveralGpus(ray.tune.Trainable):
    """Its device is what CUDA would be shown."""

    def setup(self, config: dict[str, Any]) -> None:
        self.lease = trial_lease.trial_lease(
            config["lease"], EnergyConfig(**config["energy"]), self.trial_resources.bundles[0]
        )
        self.row = {"epoch": 1, "val_accuracy": 0.5, "fully_trained": True, "done": True}

    def step(self) -> dict[str, Any]:
        self.lease.start()
        time.sleep(0.2)
        reading = self.lease.mark(1)
        self.lease.stop("finished")
        seen = f"{os.environ['CUDA_DEVICE_ORDER']} {os.environ.get('CUDA_VISIBLE_DEVICES')}"
        return {**self.row, "kwh": reading.kwh, "device": seen, "peak_rss_gb": self.trial_resources.bundles[0]["CPU"]}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep."""
