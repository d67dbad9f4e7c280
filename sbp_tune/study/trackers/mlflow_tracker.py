"""MLflow: an experiment named after the study, a run a trial, FINISHED, KILLED (stopped early) or FAILED."""

from __future__ import annotations

import os
import time
from itertools import islice

from sbp_tune.errors import InputError
from sbp_tune.study.storage_url import without_password
from sbp_tune.study.trackers.tracking import Run

# Of MLflow's own, where the user has not set them: it would ask a server that is gone for many minutes, and tell its
# makers about its use.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_STATUS = {"complete": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_BATCH = 100  # parameters that a server takes at a time
_ID = "sbp_tune.id"  # tag by which a run is found again


def check() -> None:
    """InputError where MLflow is not installed, or nothing answers where MLFLOW_TRACKING_URI says."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow
    except ImportError as error:
        raise InputError(f"not installed ({error}): pip install 'sbp-tune[mlflow]'") from error
    try:
        mlflow.MlflowClient().search_experiments(max_results=1)
    except Exception as error:  # of many kinds, also of the libraries that it stands on
        where, said = (without_password(text) for text in (mlflow.get_tracking_uri(), " ".join(str(error).split())))
        raise InputError(f"nothing answers at MLFLOW_TRACKING_URI={where}: {said}") from error


class Client:
    """Ray's callback finds the experiment and keeps the runs; it would make a request of every single figure."""

    def __init__(self, study: str) -> None:
        self._study = study

    def open(self) -> None:
        import mlflow
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        self._callback = MLflowLoggerCallback(
            tracking_uri=mlflow.get_tracking_uri(),
            experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME") or self._study,
        )
        self._callback.setup()
        self._util, self._ids = self._callback.mlflow_util, self._callback._trial_runs
        self._server = self._util._get_client()

    def begin(self, run: Run) -> None:
        from mlflow.entities import Param

        if run.attempt > 0 and (known := self._known(run)) is not None:
            self._ids[run] = known
            self._server.update_run(known, status="RUNNING")
            return
        tags = {_ID: run.trial_id, "sbp_tune.study": self._study, "sbp_tune.kind": run.kind}
        self._ids[run] = self._util.start_run(run_name=str(run), tags=tags).info.run_id
        params = iter([Param(key, str(value)) for key, value in run.config.items()])
        while batch := list(islice(params, _BATCH)):
            self._server.log_batch(self._ids[run], params=batch)

    def log(self, run: Run, epoch: int, metrics: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._server.log_batch(self._ids[run], [Metric(name, value, now, epoch) for name, value in metrics.items()])

    def end(self, run: Run) -> None:
        self._server.set_tag(self._ids[run], "sbp_tune.state", run.state)
        if run.why is not None:
            self._server.set_tag(self._ids[run], "sbp_tune.error", run.why)
        if run.state in _STATUS:  # one that was interrupted goes on in the same run
            self._server.set_terminated(self._ids.pop(run), _STATUS[run.state])

    def close(self) -> None:
        """Nothing is held open."""

    def _known(self, run: Run) -> str | None:
        found = self._server.search_runs([self._util.experiment_id], f"tags.`{_ID}` = '{run.trial_id}'", max_results=1)
        return found[0].info.run_id if found else None
