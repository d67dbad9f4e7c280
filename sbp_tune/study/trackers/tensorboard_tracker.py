"""TensorBoard: a folder `tensorboard` in the study's directory, with a run a trial."""

from __future__ import annotations

from collections.abc import Sequence

from sbp_tune.errors import InputError
from sbp_tune.study.trackers.run import Run


def check() -> None:
    """InputError where tensorboardX, which writes its files, is not installed."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise InputError(f"not installed ({error}): pip install 'sbp-tune[tensorboard]'") from error


class Client:
    """Ray's callback, given only the columns of our tables, by epoch; settings are under HPARAMS when a trial ends."""

    def __init__(self, study: str) -> None:
        self._study = study

    def open(self) -> None:
        from ray.tune.logger import TBXLoggerCallback

        self._callback = TBXLoggerCallback()

    def catch_up(self, runs: Sequence[Run]) -> None:
        """What was told was written, next to what there is to be told."""

    def begin(self, run: Run) -> None:
        self._callback.log_trial_start(run)

    def log(self, run: Run, epoch: int, metrics: dict[str, float]) -> None:
        self._callback.log_trial_result(epoch, run, {**metrics, "training_iteration": epoch})

    def end(self, run: Run) -> None:
        writer = self._callback._trial_writer.get(run)
        if writer is not None:
            writer.add_text("state", f"{run.state}: {run.why}" if run.why else str(run.state))
        self._callback.log_trial_end(run, failed=run.state == "failed")

    def close(self) -> None:
        """Each trial's file is closed with it."""
