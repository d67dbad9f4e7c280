"""A search's figures, scraped over HTTP as Prometheus does, from a Ray of its own that serves them."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from analysis.pareto import hypervolume, trial_front
from sbp_tune.study.results import load_study

pytestmark = pytest.mark.slow
pytest.importorskip("opencensus", reason="pip install 'sbp-tune[metrics]'")

DRIVER = """
import sys, time
from pathlib import Path
import ray
from sbp_tune.study import launch
from sbp_tune.study.file import load_study_file
from sbp_tune.study.ray_session import connected_ray
from sbp_tune.study.sections import SimulateConfig

file, path = sys.argv[1:]
with connected_ray(None):  # which stays after the search, as on a cluster
    launch.search(load_study_file(file, simulate=SimulateConfig()), Path(path))
    print("searched", flush=True)
    sys.stdin.readline()
"""

STUDY = """
name: scraped
config:
  data: {name: cifar10, root: nowhere, batch_size: 128}
  model: {name: resnet18, stem: cifar}
  epochs: {choice: [4, 8]}
  sparsity: {estimator: batch_slice, p0: {uniform: [0.1, 1.0]}}
baselines:
  - {sparsity.estimator: dense, epochs: 8}
search: {sampler: random, trials: 6, scheduler: moasha, reduction_factor: 2}
"""


def scraped(url):
    """Values of the lines of our metrics, by metric and labels that matter."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith("ray_sbp_"):
            name, _, rest = line.partition("{")
            labels, _, value = rest.rpartition("} ")
            pairs = dict(pair.split("=", 1) for pair in labels.split(",") if "=" in pair)
            assert pairs["study"] == '"scraped"'
            found[name, pairs.get("state", "").strip('"')] = float(value.split()[0])
    return found


def test_prometheus_finds_what_the_study_holds(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "SBP_TUNE_METRICS_PORT": str(port)}
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "study.yaml"), str(tmp_path / "scraped")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as driver:
        try:
            assert any(line == "searched\n" for line in driver.stdout), driver.stderr.read()
            study = load_study(tmp_path / "scraped")
            assert f":{port}/metrics" in (tmp_path / "scraped" / "log.jsonl").read_text()
            complete, end = (study.trials["state"] == "complete").sum(), time.monotonic() + 120
            found = {}
            while found.get(("ray_sbp_trials", "complete")) != complete and time.monotonic() < end:
                time.sleep(1)
                found = scraped(f"http://127.0.0.1:{port}/metrics")
        finally:
            driver.stdin.close()
    states = study.trials["state"].value_counts()
    assert {state: found["ray_sbp_trials", state] for state in states.index} == states.to_dict()
    assert found["ray_sbp_trials", "running"] == 0
    assert found["ray_sbp_kwh_total", ""] == pytest.approx(study.trials["kwh"].sum())
    front = trial_front(study)
    assert found["ray_sbp_front_size", ""] == len(front)
    worst = 2 * study.trials["kwh"][0]
    volume = hypervolume(front[["val_accuracy", "kwh"]].to_numpy(), ["max", "min"], np.array([0.0, worst])) / worst
    assert found["ray_sbp_hypervolume", ""] == pytest.approx(volume)
