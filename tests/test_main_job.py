"""The main job on a real Ray: search, measure, report, export, train; and what breaks in between."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product

import optuna
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from sbp_tune.cli import app
from sbp_tune.config import load_config
from sbp_tune.study.results import load_study

STUDY = """
name: tiny
config:
  data: {name: digits, subset: 256, batch_size: 32}
  model: {args: {width: 4}}
  optimizer: {lr: {log_uniform: [0.05, 0.2]}}
  epochs: {choice: [2, 4]}
  sparsity:
    estimator: mask
    schedule: {choice: [constant, linear]}
    p0: {uniform: [0.1, 1.0]}
    k: {uniform: [0.0, 0.2], when: {schedule: linear}}
baselines:
  - {sparsity.estimator: dense, epochs: 4}
  - {sparsity.estimator: dense, epochs: 2}
search: {trials: 4}
energy: {country: IRL}
resources: {cpu: 1, gpu: 0}
"""

INTERRUPTIONS = [
    pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    pytest.param(signal.SIGTERM, 130, marks=pytest.mark.slow),
    (signal.SIGKILL, -9),
]

run = CliRunner().invoke


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("studies")
    (path / "tiny.yaml").write_text(STUDY)
    return path


def search(folder, name, *options, study="tiny.yaml"):
    return run(app, ["search", str(folder / study), "--results", str(folder), "--name", name, *options])


@pytest.fixture(scope="module")
def finished(folder, ray_address):
    """A finished study of 6 trials, and what its search printed."""
    result = search(folder, "finished")
    assert result.exit_code == 0, result.output
    return folder / "finished", result.output


def test_the_search_leaves_every_file(finished):
    path, _ = finished
    for name in ("study.db", "study.yaml", "ray", "trials.csv", "trials.parquet", "epochs.parquet", "front.csv"):
        assert (path / name).exists(), name
    assert (path / "report.html").stat().st_size > 1e6 and (path / "best.yaml").is_file()
    trials, epochs = pd.read_parquet(path / "trials.parquet"), pd.read_parquet(path / "epochs.parquet")
    assert trials["state"].tolist() == ["complete"] * 6
    assert trials["kind"].tolist() == ["baseline"] * 2 + ["search"] * 4
    assert len(epochs) == trials["config.epochs"].sum() == trials["epoch"].sum()
    assert pd.read_csv(path / "trials.csv")["trial"].tolist() == trials["trial"].tolist()
    columns = ["val_accuracy", "f1", "roc_auc", "kwh", "kwh_cpu", "kwh_ram", "co2_kg", "mean_power_w", "tflop"]
    assert (trials[columns] > 0).all(axis=None)
    assert trials["kwh"].sub(trials["kwh_cpu"] + trials["kwh_ram"]).abs().max() < 1e-12
    assert (trials["kwh_measured_share"] == 0).all() and trials["kwh_gpu"].isna().all()
    assert trials["test_accuracy"].isna().all()  # computed once, on confirmed points


def test_the_front_is_the_front_of_the_table(finished):
    trials = pd.read_parquet(finished[0] / "trials.parquet").set_index("trial")
    points = trials[["val_accuracy", "kwh"]].to_dict("index")
    dominated = {
        a
        for (a, one), (b, other) in product(points.items(), points.items())
        if other["val_accuracy"] >= one["val_accuracy"] and other["kwh"] <= one["kwh"] and one != other
    }
    assert set(pd.read_csv(finished[0] / "front.csv")["trial"]) == set(points) - dominated


def test_optuna_opens_the_storage(finished):
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{finished[0] / 'study.db'}")
    assert study.metric_names == ["val_accuracy", "kwh"]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6
    # What it was told when a trial ended is what the ledger has of it, so that both find the same front.
    table = pd.read_csv(finished[0] / "trials.csv").set_index("trial")
    for trial in study.trials:
        assert trial.values == pytest.approx(table.loc[trial.number, ["val_accuracy", "kwh"]].tolist())
    front = pd.read_csv(finished[0] / "front.csv")
    assert {trial.number for trial in study.best_trials} == set(front["trial"])


def test_the_terminal_tells_in_plain_lines(finished):
    output = finished[1]
    assert "[6/6] trial" in output and "Front of finished" in output
    assert output.count("  sbp-tune ") == 4
    assert "\x1b[" not in output and "Ray" not in output


def test_every_config_is_within_the_space_and_tells_no_lie(finished):
    results = load_study(finished[0])
    for row in results.trials.to_dict("records"):
        config = results.config_of(row["trial"])
        assert config["sparsity"]["estimator"] == ("dense" if row["kind"] == "baseline" else "mask")
        assert config["epochs"] == row["epoch"]
        if row["kind"] == "search":
            assert 0.1 <= config["sparsity"]["p0"] <= 1
            assert config["sparsity"]["schedule"] == "linear" or config["sparsity"]["k"] is None


def test_train_reproduces_the_trial_exactly(finished, tmp_path):
    path, _ = finished
    for pick in ("knee", "max-accuracy", "trial=3"):
        config = tmp_path / f"{pick}.yaml"
        assert run(app, ["export", str(path), "--pick", pick, "-o", str(config)]).exit_code == 0
        result = run(app, ["train", str(config), "-o", str(tmp_path / pick)])
        assert result.exit_code == 0, result.output
    epochs = pd.read_parquet(path / "epochs.parquet")
    theirs = epochs[epochs["trial"] == 3]
    mine = pd.read_csv(tmp_path / "trial=3" / "epochs.csv")
    assert mine["loss"].tolist() == theirs["loss"].tolist()
    assert mine["val_loss"].tolist() == theirs["val_loss"].tolist()
    assert load_config(path / "best.yaml") == load_config(tmp_path / "knee.yaml")
    assert json.loads((tmp_path / "trial=3" / "result.json").read_text())["test_accuracy"] > 0


def test_a_finished_study_is_neither_resumed_nor_written_over(finished, folder):
    before = (finished[0] / "trials.csv").read_bytes()
    again = search(folder, "finished")
    assert again.exit_code == 2 and "a study of this name exists" in again.stderr
    resumed = run(app, ["resume", str(finished[0])])
    assert resumed.exit_code == 2 and "all 6 trials of this study have ended" in resumed.stderr
    assert (finished[0] / "trials.csv").read_bytes() == before


def test_report_by_name(finished, folder, tmp_path):
    output = tmp_path / "report.html"
    result = run(app, ["report", "finished", "--results", str(folder), "-o", str(output)])
    assert result.exit_code == 0 and output.stat().st_size > 1e6


def test_a_trial_that_fails_is_named_and_the_others_go_on(folder, ray_address):
    diverging = "{sparsity.estimator: dense, epochs: 4, optimizer: {lr: 100.0, momentum: 0.99, weight_decay: 10}}"
    options = ["--set", "config.optimizer.lr={log_uniform: [0.05, 100]}", "--set", "search={trials: 1, seed: 1}"]
    result = search(folder, "failing", *options, "--set", f"baselines.1={diverging}")
    assert result.exit_code == 0, result.output
    trials = load_study(folder / "failing").trials
    assert trials["state"].tolist() == ["complete", "failed", "complete"]
    assert trials["error"][1].startswith("diverged: the training loss was no longer a number in epoch")
    assert trials["kwh"][1] > 0
    assert f"trial 1 failed: {trials['error'][1]}" in result.output
    assert "diverged" in (folder / "failing" / "report.html").read_text()


@pytest.mark.slow
def test_a_study_whose_trials_all_fail_has_failed(folder, ray_address):
    options = ["--set", "baselines=[]", "--set", "search.trials=1", "--set", "config.epochs=4"]
    diverging = ["--set", "config.optimizer={lr: 50, momentum: 0.99, weight_decay: 10}"]
    result = search(folder, "hopeless", *options, *diverging)
    assert result.exit_code == 1 and "no trial was trained to its end" in result.stderr
    assert (folder / "hopeless" / "report.html").exists()


@pytest.mark.slow
def test_the_energy_budget_ends_the_search_and_stopped_trials_are_no_points(folder, ray_address):
    result = search(folder, "budget", "--set", "budget.kwh=1e-12", "--set", "config.epochs={choice: [2, 4, 50]}")
    assert result.exit_code == 1  # nothing was complete
    trials = load_study(folder / "budget").trials
    assert set(trials["state"]) == {"stopped"} and len(trials) < 6
    assert pd.read_csv(folder / "budget" / "front.csv").empty


@pytest.mark.slow
def test_a_model_that_does_not_fit_fails_its_own_trials_only(folder, ray_address):
    models = "config.model={choice: [{name: small_cnn, args: {width: 4}}, {name: alexnet}]}"
    options = ["--set", "baselines=[]", "--set", "search={trials: 5, seed: 3}", "--set", "config.epochs=1"]
    result = search(folder, "models", "--set", models, *options, "--address", ray_address)
    assert result.exit_code == 0, result.output
    trials = load_study(folder / "models").trials
    assert set(trials["state"]) == {"complete", "failed"} and len(trials) == 5
    assert trials["error"].dropna().str.contains("alexnet").all()


@pytest.mark.slow
def test_a_relative_root_is_that_of_the_command(folder, ray_address, photographs, monkeypatch):
    Image.new("RGB", (16, 16)).save(photographs / "cat" / "3.png")
    monkeypatch.chdir(photographs.parent)
    result = search(folder, "relative", *photo_options("photos"))
    assert result.exit_code == 0, result.output


def test_too_many_gpus_is_said_at_once(folder, ray_address):
    result = search(folder, "gpus", "--set", "resources.gpu=1")
    assert result.exit_code == 2
    assert "a trial asks for cpu 1 and gpu 1 on one node, but Ray has 2 CPUs and 0 GPUs on 1 node" in result.stderr
    assert not (folder / "gpus").exists()


def test_no_ray_at_an_address(folder):
    code = f"from sbp_tune.cli import app; app(['search', '{folder}/tiny.yaml', '--address', '127.0.0.1:1'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert result.returncode == 2, result.stderr
    assert "error: --address 127.0.0.1:1: no Ray cluster answers there" in result.stderr


@pytest.fixture
def photographs(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(12):
            Image.new("RGB", (16, 16), (20 * index, 99, 0)).save(tmp_path / "photos" / name / f"{index}.png")
    (tmp_path / "photos" / "cat" / "3.png").write_bytes(b"not an image")
    return tmp_path / "photos"


def photo_options(photographs):
    data = f"config.data={{name: image_folder, root: {photographs}, batch_size: 8}}"
    return ["--set", data, "--set", "search.trials=1", "--set", "baselines=[]", "--set", "config.epochs=1"]


def test_an_unreadable_image_stops_the_search_before_it_starts(folder, ray_address, photographs):
    result = search(folder, "photos", *photo_options(photographs))
    assert result.exit_code == 2
    assert "1 of 24 images cannot be read: cat/3.png" in result.stderr and "data.skip_unreadable: true" in result.stderr
    assert not (folder / "photos").exists()


@pytest.mark.slow
def test_an_unreadable_image_on_a_cluster_stops_it_and_resume_goes_on(folder, ray_address, photographs):
    """There the data lies with the workers, so a trial finds out."""
    result = search(folder, "far", *photo_options(photographs), "--address", ray_address)
    assert result.exit_code == 2, result.output
    assert "1 of 24 images cannot be read: cat/3.png" in result.stderr and "sbp-tune resume" in result.stderr
    Image.new("RGB", (16, 16)).save(photographs / "cat" / "3.png")
    resumed = run(app, ["resume", str(folder / "far"), "--address", ray_address])
    assert resumed.exit_code == 0, resumed.output
    assert load_study(folder / "far").trials["state"].tolist() == ["complete"]


@pytest.mark.parametrize(("sent", "code"), INTERRUPTIONS)
def test_an_interrupted_study_keeps_what_finished_and_resumes(folder, ray_address, sent, code):
    name = f"cut-{sent.name}"
    command = [sys.executable, "-m", "sbp_tune.cli", "search", str(folder / "tiny.yaml"), "--name", name]
    options = ["--results", str(folder), "--address", ray_address, "--set", "search.trials=6"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ
    ) as driver:
        lines = []
        for line in driver.stdout:
            lines.append(line)
            if "[3/8]" in line:
                driver.send_signal(sent)
                break
        lines += driver.stdout.readlines()
    assert driver.returncode == code, "".join(lines)
    before = load_study(folder / name).trials
    done = before[before["state"] == "complete"]
    assert len(done) >= 3
    if sent != signal.SIGKILL:
        assert "Interrupted; nothing that finished is lost" in "".join(lines)
        assert (folder / name / "report.html").exists() and (folder / name / "best.yaml").exists()
    else:
        time.sleep(1)  # Ray takes a moment to notice that its driver is gone
    resumed = run(app, ["resume", str(folder / name), "--address", ray_address])
    assert resumed.exit_code == 0, resumed.output
    after = load_study(folder / name).trials
    complete = after[after["state"] == "complete"]
    assert len(complete) == 8 and (complete["kind"] == "baseline").sum() == 2
    assert not complete.filter(like="config.").duplicated().any()
    begun = before.loc[before["state"] == "interrupted", "attempts"].sum()
    assert sum(after["attempts"]) == 8 + begun  # each of these went on as one attempt more
    kept = after.set_index("trial_id").loc[done["trial_id"]]
    assert kept["kwh"].tolist() == done["kwh"].tolist()  # what had finished did not run again


def test_a_study_in_use_refuses_a_second_writer(finished):
    import fcntl

    with (finished[0] / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run(app, ["resume", str(finished[0])])
    assert result.exit_code == 1 and "another process runs this study at present" in result.stderr
