"""Whole searches by --simulate on a real Ray: exact in their trials, marked as what they are, recorded and replayed."""

import json
import signal
import subprocess
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

from sbp_tune.cli import app
from sbp_tune.config import TrainConfig
from sbp_tune.study.results import load_study
from trainables.response import response

STUDY = """
name: far
config:
  data: {name: cifar10, root: nowhere, batch_size: 128}
  model: {name: resnet18, stem: cifar}
  optimizer: {lr: {log_uniform: [0.02, 0.4]}}
  epochs: {choice: [4, 8]}
  sparsity:
    estimator: {choice: [mask, batch_slice, channel_block]}
    schedule: {choice: [constant, linear]}
    p0: {uniform: [0.1, 1.0]}
    k: {uniform: [0.0, 0.2], when: {schedule: linear}}
baselines:
  - {sparsity.estimator: dense, epochs: 8}
  - {sparsity.estimator: dense, epochs: 4}
search: {sampler: random, trials: 10}
resources: {cpu: 4, gpu: 1}
energy: {country: IRL}
"""

run = CliRunner().invoke


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("simulated")
    (path / "far.yaml").write_text(STUDY)
    return path


def search(folder, name, *options):
    return run(app, ["search", str(folder / "far.yaml"), "--results", str(folder), "--name", name, *options])


@pytest.fixture(scope="module")
def simulated(folder, ray_address):
    """A study for GPUs and data that are not here, simulated, and what its search printed."""
    result = search(folder, "simulated", "--simulate")
    assert result.exit_code == 0, result.output
    return folder / "simulated", " ".join(result.output.split())


def test_every_trial_runs_once(simulated):
    study = load_study(simulated[0])
    assert study.trials["state"].tolist() == ["complete"] * 12
    assert study.trials["kind"].tolist() == ["baseline"] * 2 + ["search"] * 10
    assert (study.trials["epoch"] == study.trials["config.epochs"]).all()
    assert len(study.epochs) == study.trials["epoch"].sum() and (study.trials["attempts"] == 1).all()
    assert set(study.trials["device"]) == {"simulated"} and (study.trials["kwh_measured_share"] == 0).all()
    assert (study.trials["co2_kg"] > 0).all()
    assert set(study.trials["config.device"]) == {"cuda"}  # what export writes trains where the study would


def test_it_says_that_it_is_simulated(simulated):
    path, output = simulated
    claim = "Simulated, nothing was trained or measured: all accuracies, times and energies are those of an analytic"
    assert claim in output and "(simulated): val_accuracy against kwh" in output
    assert claim in (path / "report.html").read_text()
    assert claim in (path / "best.yaml").read_text()
    shown = run(app, ["search", str(path / "study.yaml"), "--name", "other", "--dry-run"])
    assert shown.exit_code == 0 and claim in " ".join(shown.output.split())


def test_its_logs_tell_what_the_tables_hold(simulated):
    path, study = simulated[0], load_study(simulated[0])
    began, *events, ended = map(json.loads, (path / "log.jsonl").read_text().splitlines())
    assert (began["event"], began["resumed"], began["trials"]) == ("study_began", False, 12)
    assert began["versions"] == study.versions and began["nodes"][0]["CPU"] == 2
    assert (ended["event"], ended["ending"]) == ("study_ended", "finished")
    ends = {event["trial"]: event for event in events if event["event"] == "trial_ended"}
    assert [ends[trial]["state"] for trial in study.trials["trial"]] == study.trials["state"].tolist()
    assert [ends[trial]["kwh"] for trial in study.trials["trial"]] == study.trials["kwh"].tolist()
    for trial, rows in study.epochs.groupby("trial"):
        own = list(map(json.loads, (path / "logs" / f"trial-{trial:04d}.jsonl").read_text().splitlines()))
        assert own[0]["config"] == study.config_of(trial)
        told = [event["val_accuracy"] for event in own if event["event"] == "epoch_ended"]
        assert told == rows["val_accuracy"].tolist()
        human = (path / "logs" / f"trial-{trial:04d}.log").read_text()
        assert f"attempt 0 of trial {trial}, on " in human and human.count(", val_accuracy ") == len(rows)


@pytest.mark.slow
def test_recorded_and_searched_again(simulated, folder):
    """A random sampler of the same seed proposes the same configs, and exact plays the rows of each."""
    table = folder / "table.parquet"
    recorded = run(app, ["record", "simulated", "--results", str(folder), "-o", str(table)])
    assert recorded.exit_code == 0 and recorded.output.strip() == str(table)
    result = search(folder, "again", "--simulate", str(table), "--set", "simulate.match=exact")
    assert result.exit_code == 0, result.output
    again, first = load_study(folder / "again"), load_study(simulated[0])
    pd.testing.assert_frame_equal(again.epochs, first.epochs, check_exact=True)
    assert again.trials["state"].tolist() == ["complete"] * 12
    assert "recorded in" in again.simulation and "of the same config as each proposed one" in again.simulation


@pytest.mark.slow
def test_exact_fails_a_trial_that_was_not_recorded(simulated, folder):
    table = folder / "exact.parquet"
    assert run(app, ["record", str(simulated[0]), "-o", str(table)]).exit_code == 0
    options = ["--set", "simulate.match=exact", "--set", "search={trials: 1, seed: 9}"]
    result = search(folder, "unknown", "--simulate", str(table), *options)
    assert result.exit_code == 0, result.output
    trials = load_study(folder / "unknown").trials
    assert trials["state"].tolist() == ["complete", "complete", "failed"]
    assert "none of 12 recorded trials has exactly this config" in trials["error"][2]


@pytest.mark.slow
def test_nearest_plays_a_recorded_trial_for_every_proposal(simulated, folder):
    table = folder / "near.parquet"
    assert run(app, ["record", str(simulated[0]), "-o", str(table)]).exit_code == 0
    result = search(folder, "near", "--simulate", str(table), "--set", "search.seed=5")
    assert result.exit_code == 0, result.output
    near, first = load_study(folder / "near").trials, load_study(simulated[0]).trials
    assert (near["state"] == "complete").sum() == 12
    assert set(near["val_accuracy"]) <= set(first["val_accuracy"])
    assert near["kwh"][:2].tolist() == first["kwh"][:2].tolist()  # the controls are in the table as they are


@pytest.mark.slow
def test_an_energy_budget_counts_simulated_energy_and_can_be_raised(folder, ray_address):
    """No trial is cut: those that would not fit do not start, and start when there is more."""
    result = search(folder, "budget", "--simulate", "--set", "budget.kwh=0.03")
    assert result.exit_code == 0, result.output
    assert "used, the next trial would take about" in " ".join(result.output.split())
    path, first = folder / "budget", load_study(folder / "budget").trials
    assert 2 <= len(first) < 12 and set(first["state"]) == {"complete"} and first["kwh"].sum() <= 0.03
    refused = run(app, ["resume", str(path)])
    assert refused.exit_code == 2 and f"{path}: its budget is used up: " in refused.stderr
    assert run(app, ["resume", str(path), "--set", "search.trials=3"]).exit_code == 2
    raised = run(app, ["resume", str(path), "--set", "budget.kwh=1", "--address", ray_address])
    assert raised.exit_code == 0, raised.output
    study = load_study(path)
    assert study.trials["state"].tolist() == ["complete"] * 12 and study.study["budget"]["kwh"] == 1
    kept = study.trials.set_index("trial_id").loc[first["trial_id"], "kwh"]
    assert kept.tolist() == first["kwh"].tolist() and (study.trials["attempts"] == 1).all()


@pytest.mark.slow
def test_a_killed_simulation_resumes_without_losing_or_doubling_energy(folder, ray_address):
    command = [sys.executable, "-m", "sbp_tune.cli", "search", str(folder / "far.yaml"), "--simulate", "--name", "cut"]
    options = ["--results", str(folder), "--address", ray_address, "--set", "search.trials=20"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as driver:
        assert any("[5/22]" in line for line in driver.stdout)
        driver.send_signal(signal.SIGKILL)
    resumed = run(app, ["resume", str(folder / "cut"), "--address", ray_address])
    assert resumed.exit_code == 0, resumed.output
    study = load_study(folder / "cut")
    assert study.trials["state"].tolist() == ["complete"] * 22
    for trial, kwh in zip(study.trials["trial"], study.trials["kwh"], strict=True):
        assert kwh == response(TrainConfig.model_validate(study.config_of(trial)))[-1]["kwh"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["none.parquet", "--simulate"], "no such file; `sbp-tune record` writes replay tables"),
        (["none.parquet"], "a table is for --simulate"),
        (["--set", "simulate.noise=-1"], "simulate.noise: found -1"),
        (["--set", "simulate.match=closest"], "simulate.match: found 'closest'"),
    ],
)
def test_bad_input(folder, options, message):
    result = search(folder, "bad", *options)
    assert result.exit_code == 2 and message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and not (folder / "bad").exists()
