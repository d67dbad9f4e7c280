"""Weights & Biases: a run a trial, in the project WANDB_PROJECT (else sbp-tune) and a group named after the study."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from sbp_tune.errors import InputError
from sbp_tune.study.trackers.run import Run

_OFFLINE = ("offline", "dryrun", "disabled")
_UPLOAD_S = 30  # how long the end of a search waits for runs to be sent


def check() -> None:
    """InputError where wandb is not installed, or its server takes no key that is found; offline it needs none."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to its makers
    try:
        import wandb
    except ImportError as error:
        raise InputError(f"not installed ({error}): pip install 'sbp-tune[wandb]'") from error
    if _mode() in _OFFLINE:
        return
    again = "WANDB_MODE=offline keeps runs here"
    try:
        known = wandb.login(prompt=False, verify=True)
    except Exception as error:  # of many kinds, also of the libraries that it stands on
        raise InputError(f"{' '.join(str(error).split())}; {again}") from error
    if not known:
        raise InputError(f"no key: `wandb login`, or set WANDB_API_KEY; {again}")


class Client:
    """Ray's callback, which sends the runs from processes of their own, two a trial."""

    def __init__(self, study: str) -> None:
        self._study = study

    def open(self) -> None:
        from ray.air.integrations.wandb import WandbLoggerCallback

        class Callback(WandbLoggerCallback):
            """Keeps how a trial ended among its settings, by which runs can be filtered."""

            AUTO_CONFIG_KEYS = ("trial_state", "error")

        # Its `setup` looks for a key by ways that wandb has given up; `check` has found one.
        options: dict[str, Any] = {"mode": _mode(), "entity": os.environ.get("WANDB_ENTITY"), "resume": "allow"}
        if base := os.environ.get("WANDB_BASE_URL"):
            options["settings"] = {"base_url": base}
        project = os.environ.get("WANDB_PROJECT", "sbp-tune")
        self._callback = Callback(project=project, group=self._study, upload_timeout=_UPLOAD_S, **options)

    def catch_up(self, runs: Sequence[Run]) -> None:
        """A run whose process was killed is called crashed by its server, and `wandb sync` sends what lies here."""

    def begin(self, run: Run) -> None:
        run.init_local_path()
        self._callback.log_trial_start(run)

    def log(self, run: Run, epoch: int, metrics: dict[str, float]) -> None:
        self._callback.log_trial_result(epoch, run, {**metrics, "training_iteration": epoch})
        run.last_result = metrics

    def end(self, run: Run) -> None:
        epoch = int(run.last_result.get("epoch", 0))
        last = {"trial_state": run.state, "error": run.why or "", "training_iteration": epoch}
        self._callback.log_trial_result(epoch, run, last)
        self._callback.log_trial_end(run, failed=run.state == "failed")

    def close(self) -> None:
        self._callback.on_experiment_end([])


def _mode() -> str | None:
    return os.environ.get("WANDB_MODE")
