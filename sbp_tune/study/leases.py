"""Ends the energy lease of a trial when Ray says that the trial is complete."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback

from sbp_tune.energy.node_actor import end_attempt


class LeaseEnder(Callback):
    """For trials that the scheduler stops: they are not told, and Ray keeps their processes for the next trials."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        lease = trial.config["lease"]
        end_attempt(lease["folder"], lease["trial"], lease["attempt"])
