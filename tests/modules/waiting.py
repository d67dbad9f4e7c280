"""Trials that take their time, and are metered, without torch: curves of the analytic response, an epoch a sleep.

And those that come to harm, each at the second epoch of the trial of seed 1: what Ray's workers import by name.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import ray
from fake_gpus import UUIDS

from sbp_tune.energy.node_actor import NodeLease
from trainables.replay import Replay


class Waiting(Replay):
    """Leases the GPUs that Ray gave it, waits, and reports the energy that its node's meter tells."""

    EPOCH_S = 1.0
    _lease: NodeLease | None = None

    def step(self) -> dict[str, Any]:
        if self._lease is None:
            self.curve  # noqa: B018 - so that it is known from which epoch on
            given, gpus = self._given["lease"], ray.get_runtime_context().get_accelerator_ids()["GPU"]
            shares = {UUIDS[int(number)]: 1.0 for number in gpus}
            self._lease = NodeLease(
                Path(given["folder"]), given["trial"], given["attempt"], self._config.energy, shares, 1
            )
            self._lease.start(self._epoch)
        if self._given["seed"] == 1 and self._epoch == 1:
            self.harm(self._given["lease"]["attempt"])
        time.sleep(self.EPOCH_S)
        row = super().step()
        reading = self._lease.mark(row["epoch"])
        if row["fully_trained"]:
            self._end("finished")
        return row | {"kwh": reading.kwh, **{f"kwh_{name}": part.kwh for name, part in reading.components.items()}}

    def cleanup(self) -> None:
        self._end("stopped")
        super().cleanup()

    def _end(self, reason: Any) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.stop(reason)

    def harm(self, attempt: int) -> None:
        """What happens to the trial of seed 1."""


class Hangs(Waiting):
    """Its process stands still, and can do nothing about it."""

    def harm(self, attempt: int) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)


class HangsOnce(Hangs):
    """Likewise, in the first attempt."""

    def harm(self, attempt: int) -> None:
        if attempt == 0:
            super().harm(attempt)


class Eats(Waiting):
    """Takes memory, 50 MB at a time, until somebody ends it; 8 GB at most."""

    def harm(self, attempt: int) -> None:
        taken = []
        for _ in range(160):
            taken.append(bytearray(os.urandom(1) * 50_000_000))
            time.sleep(0.05)
        time.sleep(60)
