"""MLflow: an experiment named after the study, a run a trial, FINISHED, KILLED (stopped early) or FAILED."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

from sbp_tune.errors import InputError
from sbp_tune.study.storage_url import without_password
from sbp_tune.study.trackers.run import Run

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
        mlflow.MlflowClient(_server_uri()).search_experiments(max_results=1)
    except Exception as error:  # of many kinds, also of the libraries that it stands on
        where, said = (without_password(text) for text in (_server_uri(), " ".join(str(error).split())))
        raise InputError(f"nothing answers at MLFLOW_TRACKING_URI={where}: {said}") from error


class Client:
    """Ray's callback finds the experiment and keeps the runs; it would make a request of every single figure."""

    def __init__(self, study: str) -> None:
        self._study = study
        self._told: dict[Run, int] = {}  # the last epoch that the server has

    def open(self) -> None:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        self._callback = MLflowLoggerCallback(
            tracking_uri=_server_uri(),
            experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME") or self._study,
        )
        self._callback.setup()
        self._util, self._ids = self._callback.mlflow_util, self._callback._trial_runs
        self._server = self._util._get_client()

    def catch_up(self, runs: Sequence[Run]) -> None:
        shown = self._shown()
        for run in runs:
            known = shown.get(run.trial_id)
            if known is None or known.info.status == "RUNNING":
                self._begin(run, known)
                self.end(run)

    def begin(self, run: Run) -> None:
        known = self._shown(run) if run.attempt > 0 else {}
        self._begin(run, known.get(run.trial_id))

    def _begin(self, run: Run, known: Any) -> None:
        """known: what the server has of this run, if it has it."""
        from mlflow.entities import Param

        if known is not None:
            self._ids[run] = known.info.run_id
            self._told[run] = int(known.data.metrics.get("epoch", 0))
            self._server.update_run(self._ids[run], status="RUNNING")
        else:
            tags = {_ID: run.trial_id, "sbp_tune.study": self._study, "sbp_tune.kind": run.kind}
            self._ids[run] = self._util.start_run(run_name=str(run), tags=tags).info.run_id
            params = iter([Param(key, str(value)) for key, value in run.config.items()])
            while batch := list(islice(params, _BATCH)):
                self._server.log_batch(self._ids[run], params=batch)
        for epoch, metrics in run.epochs.items():
            self.log(run, epoch, metrics)

    def log(self, run: Run, epoch: int, metrics: dict[str, float]) -> None:
        from mlflow.entities import Metric

        if epoch <= self._told.get(run, 0):  # run again after a death: a curve has a point an epoch
            return
        now = int(1000 * time.time())
        self._server.log_batch(self._ids[run], [Metric(name, value, now, epoch) for name, value in metrics.items()])
        self._told[run] = epoch

    def end(self, run: Run) -> None:
        self._server.set_tag(self._ids[run], "sbp_tune.state", run.state)
        if run.why is not None:
            self._server.set_tag(self._ids[run], "sbp_tune.error", run.why)
        if run.state in _STATUS:  # one that was interrupted goes on in the same run
            self._server.set_terminated(self._ids.pop(run), _STATUS[run.state])
            self._told.pop(run, None)

    def close(self) -> None:
        """Nothing is held open."""

    def _shown(self, run: Run | None = None) -> dict[str, Any]:
        """The server's run by our id, of a trial or of all of the study."""
        tag, value = ("sbp_tune.study", self._study) if run is None else (_ID, run.trial_id)
        found: dict[str, Any] = {}
        token = None
        while True:
            page = self._server.search_runs([self._util.experiment_id], f"tags.`{tag}` = '{value}'", page_token=token)
            found |= {shown.data.tags[_ID]: shown for shown in page}
            if not (token := page.token):
                return found


def _server_uri() -> str:
    """Of a search before this one in the same process MLflow would remember where it went."""
    import mlflow

    return os.environ.get("MLFLOW_TRACKING_URI") or mlflow.get_tracking_uri()
