"""Extending a study and confirming its points on a real Ray: simulated, and by real training on digits."""

import json
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.confirmed import confirmed_runs
from sbp_tune.cli import app
from sbp_tune.config import TrainConfig
from sbp_tune.energy import node_actor
from sbp_tune.files import read_yaml
from sbp_tune.study.results import load_study
from trainables.response import response, true_accuracy

FAR = """
name: far
config:
  data: {name: cifar10, root: nowhere, batch_size: 128}
  model: {name: resnet18, stem: cifar}
  optimizer: {lr: {log_uniform: [0.02, 0.4]}}
  epochs: 2
  sparsity: {estimator: batch_slice, p0: {uniform: [0.1, 0.9]}}
baselines:
  - {sparsity.estimator: dense, epochs: 2}
  - {sparsity.estimator: dense, epochs: 1}
search: {sampler: random, trials: 1}
budget: {kwh: 0.03}
resources: {cpu: 4, gpu: 1}
"""
TINY = """
name: tiny
trainable: fake_gpus:OnFakeGpus
config:
  data: {name: digits, subset: 256, batch_size: 32}
  model: {args: {width: 4}}
  device: cpu
  epochs: 3
  sparsity: {estimator: mask, p0: {choice: [0.3, 0.6]}}
baselines:
  - {sparsity.estimator: dense, epochs: 3}
  - {sparsity.estimator: dense, epochs: 1}
search: {sampler: random, trials: 1}
resources: {cpu: 1, gpu: 1}
"""

run = CliRunner().invoke


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("studies")
    (path / "far.yaml").write_text(FAR)
    (path / "tiny.yaml").write_text(TINY)
    return path


def search(folder, name, *options, study="far.yaml"):
    result = run(app, ["search", str(folder / study), "--results", str(folder), "--name", name, *options])
    assert result.exit_code == 0, result.output
    return folder / name


@pytest.fixture(scope="module")
def confirmed(folder, ray_address):
    """A simulated study of 3 trials after confirm, and after that what extending it by a trial and more said."""
    path = search(folder, "far", "--simulate")
    before = (path / "trials.csv").read_bytes()
    said = run(app, ["confirm", "far", "--results", str(folder), "--points", "trial=2", "--seeds", "2"])
    assert said.exit_code == 0, said.output
    return path, before, " ".join(said.output.split())


def test_every_point_and_control_ran_with_both_seeds_and_was_tested(confirmed):
    path, before, _ = confirmed
    runs, study = confirmed_runs(load_study(path)), load_study(path / "confirm")
    assert (runs["state"] == "complete").all() and (study.trials["attempts"] == 1).all()
    assert sorted(zip(runs["point"], runs["seed"], strict=True)) == sorted(
        (point, seed) for point in (0, 1, 2) for seed in set(runs["seed"])
    )
    assert len(set(runs["seed"])) == 2 and 0 not in set(runs["seed"])
    for row in study.trials.to_dict("records"):
        config = TrainConfig.model_validate(study.config_of(row["trial"]))
        assert row["kwh"] == response(config)[-1]["kwh"]
        assert 0 < abs(row["test_accuracy"] - true_accuracy(config, config.epochs)) < 0.02
        assert row["test_accuracy"] != row["val_accuracy"]
    assert (path / "trials.csv").read_bytes() == before  # the search is as it was


def test_the_tables_and_the_terminal(confirmed):
    path, _, said = confirmed
    table, same = pd.read_csv(path / "confirmed.csv"), pd.read_parquet(path / "confirmed.parquet")
    pd.testing.assert_frame_equal(table.fillna({"verdict": ""}), same, check_dtype=False)
    assert table["trial"].tolist() == [1, 0, 2] and table["seeds"].tolist() == [2, 2, 2]
    runs = confirmed_runs(load_study(path)).groupby("point")["test_accuracy"].mean()
    assert table["test_accuracy_mean"].tolist() == pytest.approx([runs[1], runs[0], runs[2]])
    assert "Confirmed points of far (simulated)" in said and "point 2, seed" in said
    assert "confirmed sparse point" in (path / "report.html").read_text()


@pytest.mark.slow
def test_extended_by_a_trial(confirmed):
    path = confirmed[0]
    said = run(app, ["extend", str(path), "--trials", "+1"])
    assert said.exit_code == 0, said.output
    trials, again = load_study(path).trials, pd.read_csv(path / "trials.csv")
    assert trials["state"].tolist() == ["complete"] * 4 and read_yaml(path / "study.yaml")["search"]["trials"] == 2
    assert (trials["attempts"] == 1).all() and len(again) == 4
    assert trials["config.sparsity.p0"].nunique() == 3  # another one, and the controls' 1.0


@pytest.mark.slow
def test_confirmed_with_one_more_seed(confirmed):
    path = confirmed[0]
    first = confirmed_runs(load_study(path))
    said = run(app, ["confirm", str(path), "--points", "trial=2", "--seeds", "3"])
    assert said.exit_code == 0, said.output
    runs = confirmed_runs(load_study(path))
    assert len(runs) == 9 and (load_study(path / "confirm").trials["attempts"] == 1).all()
    pd.testing.assert_frame_equal(runs[:6], first)
    said = run(app, ["confirm", str(path), "--points", "trial=2", "--seeds", "3"])  # nothing is left to run
    assert said.exit_code == 0 and "started" not in said.output and "Confirmed points" in said.output


def test_a_budget_that_is_used_up_leaves_the_study_as_it_was(confirmed):
    path = confirmed[0]
    before = (path / "study.yaml").read_bytes()
    table = pd.read_csv(path / "trials.csv")
    assert table["kwh"].sum() < 0.03
    document = before.replace(b"kwh: 0.03", b"kwh: 0.001")
    (path / "study.yaml").write_bytes(document)
    said = run(app, ["extend", str(path), "--trials", "+1"])
    assert said.exit_code == 2 and "its budget is used up: " in said.stderr
    assert (path / "study.yaml").read_bytes() == document
    (path / "study.yaml").write_bytes(before)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_confirmation_goes_on(folder, ray_address, sent):
    path = search(folder, f"cut-{sent.name}", "--simulate", "--set", "config.epochs=4")
    command = [sys.executable, "-m", "sbp_tune.cli", "confirm", str(path), "--points", "trial=2", "--seeds", "5"]
    with subprocess.Popen([*command, "--address", ray_address], stdout=subprocess.PIPE, text=True) as driver:
        assert any("[4/" in line for line in driver.stdout)
        driver.send_signal(sent)
        driver.stdout.read()
    assert driver.returncode == (130 if sent == signal.SIGINT else -9)
    time.sleep(1)
    plan, done = (path / "confirm" / "study.yaml").read_text(), load_study(path / "confirm").trials
    done = done[done["state"] == "complete"]
    assert 4 <= len(done) < 15
    said = run(app, [*command[3:], "--address", ray_address])
    assert said.exit_code == 0, said.output
    after = load_study(path / "confirm")
    assert after.trials["state"].tolist() == ["complete"] * 15
    assert (path / "confirm" / "study.yaml").read_text() == plan
    kept = after.trials.set_index("trial_id").loc[done["trial_id"]]
    assert kept["kwh"].tolist() == done["kwh"].tolist() and (kept["attempts"] == 1).all()
    for trial, kwh in zip(after.trials["trial"], after.trials["kwh"], strict=True):
        assert kwh == response(TrainConfig.model_validate(after.config_of(trial)))[-1]["kwh"]


@pytest.mark.slow
def test_a_recorded_table_has_no_test_metrics_and_says_so(folder, ray_address):
    path = search(folder, "source", "--simulate", "--set", "search.trials=3")
    table = folder / "table.parquet"
    assert run(app, ["record", str(path), "-o", str(table)]).exit_code == 0
    path = search(folder, "played", "--simulate", str(table))
    said = run(app, ["confirm", str(path), "--points", "trial=2", "--seeds", "2"])
    assert said.exit_code == 0, said.output
    runs = confirmed_runs(load_study(path))
    assert runs["test_accuracy"].isna().all() and (runs["state"] == "complete").all()
    played = load_study(path).trials.set_index("trial")
    for point, mine in runs.groupby("point"):  # the nearest is still the nearest: it knows what was searched
        assert set(mine["val_accuracy"]) == {played["val_accuracy"][point]}


@pytest.mark.slow
def test_a_grid_beside_sampled_parameters_is_extended_whole(folder, ray_address):
    grid = ["--set", "config.epochs={grid: [1, 2, 3]}", "--set", "baselines=[]", "--set", "search.sampler=tpe"]
    path = search(folder, "grid", "--simulate", *grid)
    said = run(app, ["extend", str(path), "--trials", "3"])
    assert said.exit_code == 0, said.output
    trials = load_study(path).trials
    assert trials["config.epochs"].tolist() == [1, 2, 3] * 3 and (trials["state"] == "complete").all()
    assert trials["config.optimizer.lr"].nunique() == 9


@pytest.mark.slow
def test_real_training_is_tested_metered_apart_and_paired_on_its_gpu(folder, ray_address, monkeypatch, tmp_path):
    monkeypatch.setenv(node_actor.COUNTERS, "fake_gpus:counters")
    address = ["--address", ray_address]
    path = search(folder, "tiny", *address, study="tiny.yaml")
    bill = json.loads(run(app, ["energy", str(path), "--json"]).output)
    said = run(app, ["confirm", str(path), "--points", "trial=2", "--seeds", "2", *address])
    assert said.exit_code == 0, said.output
    study, confirmation = load_study(path), load_study(path / "confirm")
    runs = confirmed_runs(study)
    assert (runs["state"] == "complete").all() and len(runs) == 6
    assert confirmation.trials["epoch"].tolist() == confirmation.trials["config.epochs"].tolist()

    assert runs.groupby("seed")["gpu_uuid"].nunique().tolist() == [1, 1]  # blocked
    table = pd.read_csv(path / "confirmed.csv").set_index("trial")
    assert table["same_gpu"].tolist() == [2, 2, 2]
    assert study.trials["test_accuracy"].isna().all()  # computed once, on confirmed points

    number = int(confirmation.trials["trial"][runs["point"] == 2].iloc[0])
    export = ["export", str(path / "confirm"), "--pick", f"trial={number}", "-o", str(tmp_path / "one.yaml")]
    assert run(app, export).exit_code == 0
    assert run(app, ["train", str(tmp_path / "one.yaml"), "-o", str(tmp_path / "one")]).exit_code == 0
    alone = json.loads((tmp_path / "one" / "result.json").read_text())
    assert runs["test_accuracy"][number] == alone["test_accuracy"]

    now = json.loads(run(app, ["energy", str(path), "--json"]).output)
    own = now.pop("confirmation")
    assert bill.pop("confirmation") is None and now == bill
    assert sum(trial["kwh"] for trial in own["trials"]) == pytest.approx(runs["kwh"].sum())
    shown = " ".join(run(app, ["energy", str(path)]).output.split())
    assert "Confirmation, beside the search and in none of these numbers nor its budget:" in shown
    assert "for 6 runs" in shown
