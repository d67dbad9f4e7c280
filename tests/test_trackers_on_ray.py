"""Whole simulated searches that trackers follow: a real MLflow server, and Weights & Biases without its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sbp_tune.cli import app
from sbp_tune.study.results import load_study

pytestmark = pytest.mark.slow
SERVER = "SBP_TUNE_TEST_MLFLOW"  # the `mlflow` command of an environment of its own: the whole MLflow, not the client

STUDY = """
name: followed
config:
  data: {name: cifar10, root: nowhere, batch_size: 128}
  model: {name: resnet18, stem: cifar}
  optimizer: {lr: {log_uniform: [0.02, 0.4]}}
  epochs: {choice: [6, 12]}
  sparsity: {estimator: {choice: [mask, batch_slice]}, p0: {uniform: [0.1, 1.0]}}
baselines:
  - {sparsity.estimator: dense, epochs: 12}
search: {sampler: random, trials: 9, scheduler: moasha, reduction_factor: 2}
"""

run = CliRunner().invoke


@pytest.fixture
def file(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    return str(tmp_path / "study.yaml")


class Server:
    """`mlflow server` on this machine, with SQLite in a folder."""

    def __init__(self, folder):
        command = os.environ.get(SERVER) or shutil.which("mlflow", path=str(Path(sys.executable).parent))
        if command is None:
            pytest.skip(f"no MLflow server: pip install mlflow, somewhere, and {SERVER}=that/bin/mlflow")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self._log = f"http://127.0.0.1:{port}", folder / "server.log"
        store = [f"--backend-store-uri=sqlite:///{folder}/mlflow.db", f"--artifacts-destination={folder}/artifacts"]
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process = subprocess.Popen(
            [command, "server", *store, "--host=127.0.0.1", f"--port={port}", "--workers=1"],
            stdout=self._log.open("w"), stderr=subprocess.STDOUT, env=environment, start_new_session=True,
        )  # fmt: skip

    def wait(self):
        """Until it answers."""
        end = time.monotonic() + 300
        while time.monotonic() < end and self._process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return self
            except OSError:
                time.sleep(0.5)
        self.kill()
        pytest.fail(f"the MLflow server did not come up: {self._log.read_text()[-2000:]}")

    def kill(self):
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture
def server(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="pip install 'sbp-tune[mlflow]'")
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    try:
        yield server.wait()
    finally:
        server.kill()


def client_of(server):
    import mlflow

    return mlflow.MlflowClient(tracking_uri=server.url)


def runs_of(client, experiment="followed"):
    found = client.get_experiment_by_name(experiment)
    runs = [] if found is None else client.search_runs([found.experiment_id])
    assert len(runs) == len({run.info.run_name for run in runs})
    return {run.info.run_name: run for run in runs}


@pytest.mark.parametrize("halving", ["stopping", "promotion"])  # of which one begins runs again that had ended
def test_mlflow_has_every_trial_with_its_settings_curves_and_end(
    server, file, tmp_path, ray_address, monkeypatch, halving
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    settings = ["--set", "search.trackers=[mlflow]", "--set", f"search.halving={halving}"]
    result = run(app, ["search", file, "--simulate", "--results", str(tmp_path), *settings])
    assert result.exit_code == 0 and "warning" not in result.output, result.output
    study, client = load_study(tmp_path / "followed"), client_of(server)
    assert {"complete", "stopped"} == set(study.trials["state"])  # else it shows less than it is to show
    has_every_trial(client, study)
    shown, config = runs_of(client)["trial-0003"].data.params, study.config_of(3)
    assert shown["sparsity.p0"] == str(config["sparsity"]["p0"]) and shown["epochs"] == str(config["epochs"])
    assert shown["data.name"] == "cifar10"


def has_every_trial(client, study):
    """A run for each trial of a study, with how it ended and the figures of every epoch, once."""
    runs = runs_of(client)
    assert sorted(runs) == [f"trial-{number:04d}" for number in study.trials["trial"]]
    for number, state in zip(study.trials["trial"], study.trials["state"], strict=True):
        shown = runs[f"trial-{number:04d}"]
        assert shown.info.status == {"complete": "FINISHED", "stopped": "KILLED"}[state]
        assert shown.data.tags["sbp_tune.state"] == state
        epochs = study.epochs[study.epochs["trial"] == number]
        for column in ("val_accuracy", "kwh", "train_time_s"):
            history = client.get_metric_history(shown.info.run_id, column)
            assert [metric.step for metric in history] == epochs["epoch"].tolist()
            assert [metric.value for metric in history] == pytest.approx(epochs[column].tolist(), rel=1e-12)


def driver(file, tmp_path, ray_address, url, *options, command="search"):
    arguments = (
        [file, "--simulate", "--results", str(tmp_path)] if command == "search" else [str(tmp_path / "followed")]
    )
    return subprocess.Popen(
        [sys.executable, "-m", "sbp_tune.cli", command, *arguments, "--address", ray_address, *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": url},
    )  # fmt: skip


def test_a_server_that_goes_is_one_warning_and_the_search_goes_on(server, file, tmp_path, ray_address):
    options = ["--set", "search.trackers=[mlflow]", "--set", "search.trials=20"]
    with driver(file, tmp_path, ray_address, server.url, *options) as process:
        assert any("[3/21]" in line for line in process.stdout)
        server.kill()
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert len([line for line in errors.splitlines() if line.startswith("warning: mlflow failed")]) == 1, errors
    assert set(load_study(tmp_path / "followed").trials["state"]) == {"complete", "stopped"}
    assert '"event": "warning"' in (tmp_path / "followed" / "log.jsonl").read_text()


def test_a_killed_search_goes_on_in_the_same_runs(server, file, tmp_path, ray_address):
    options = ["--set", "search.trackers=[mlflow]", "--set", "search.trials=20"]
    with driver(file, tmp_path, ray_address, server.url, *options) as process:
        assert any("[5/21]" in line for line in process.stdout)
        process.kill()
    with driver(file, tmp_path, ray_address, server.url, command="resume") as process:
        output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, output + errors
    has_every_trial(client_of(server), load_study(tmp_path / "followed"))


def test_a_server_that_is_not_there_is_a_line_before_anything_starts(file, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="pip install 'sbp-tune[mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    result = run(app, ["search", file, "--simulate", "--results", str(tmp_path), "--set", "search.trackers=[mlflow]"])
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert "search.trackers: mlflow: nothing answers at MLFLOW_TRACKING_URI=http://...@127.0.0.1:9" in result.stderr
    assert "secret" not in result.output + result.stderr and not (tmp_path / "followed").exists()


def test_wandb_without_its_server_is_a_line_before_anything_starts(file, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="pip install 'sbp-tune[wandb]'")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    result = run(app, ["search", file, "--simulate", "--results", str(tmp_path), "--set", "search.trackers=[wandb]"])
    assert result.exit_code == 2 and result.stderr.startswith("error: search.trackers: wandb: "), result.stderr
    assert "127.0.0.1:9" in result.stderr and "0" * 40 not in result.stderr and not (tmp_path / "followed").exists()


def test_wandb_has_every_trial_offline(file, tmp_path, ray_address, monkeypatch):
    pytest.importorskip("wandb", reason="pip install 'sbp-tune[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    options = ["--set", "search.trackers=[wandb]", "--set", "search.trials=2"]
    result = run(app, ["search", file, "--simulate", "--results", str(tmp_path), *options])
    assert result.exit_code == 0 and "warning" not in result.output + result.stderr, result.output + result.stderr
    kept = list((tmp_path / "followed" / "wandb").glob("**/*.wandb"))
    assert len(kept) == len(load_study(tmp_path / "followed").trials)
