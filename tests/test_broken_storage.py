"""A disk or a storage that fails under a running search: one clear line, finished trials intact, `resume` goes on."""

import os
import subprocess
import sys
from contextlib import suppress
from itertools import islice

import pytest
from typer.testing import CliRunner

from sbp_tune.cli import app
from sbp_tune.config import TrainConfig
from sbp_tune.study.results import load_study
from trainables.response import response

pytestmark = pytest.mark.slow

STUDY = """
name: far
config:
  data: {name: cifar10, root: nowhere}
  optimizer: {lr: {log_uniform: [0.02, 0.4]}}
  epochs: {choice: [4, 8]}
  sparsity: {estimator: {choice: [mask, batch_slice]}, p0: {uniform: [0.1, 1.0]}}
baselines:
  - {sparsity.estimator: dense, epochs: 8}
search: {sampler: random, trials: 19}
"""
# A locked file is not waited for as long as a person would.
DRIVER = "import sys, sbp_tune.study.storage as s; s.PATIENCE_S = 2; from sbp_tune.cli import app; app(sys.argv[1:])"

run = CliRunner().invoke
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")


def mount(*arguments):
    if subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount")


@pytest.fixture
def disk(tmp_path):
    """A disk of 16 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", path)
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def broken(ray_address, tmp_path):
    """broken(results, harm) -> (exit code, standard error) of a search that is harmed when 5 trials are complete."""

    def search(results, harm, *options):
        (tmp_path / "far.yaml").write_text(STUDY)
        arguments = ["search", str(tmp_path / "far.yaml"), "--simulate", "--results", str(results), *options]
        command = [sys.executable, "-c", DRIVER, *arguments, "--address", ray_address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
            complete = islice((line for line in driver.stdout if " complete " in line), 6)
            assert len(list(complete)) == 6, driver.stderr.read()
            harm(results / "far")
            _, errors = driver.communicate()
        return driver.returncode, errors

    return search


def finished_of(path):
    trials = load_study(path).trials
    return trials[trials["state"] == "complete"].set_index("trial")


def resumes(path, ray_address, before):
    """Resume runs the rest, and leaves what had finished as it was."""
    assert len(before) >= 5
    resumed = run(app, ["resume", str(path), "--address", ray_address])
    assert resumed.exit_code == 0, resumed.output
    study = load_study(path)
    assert study.trials["state"].tolist() == ["complete"] * 20
    columns = ["trial_id", "val_accuracy", "kwh"]
    assert study.trials.set_index("trial").loc[before.index, columns].equals(before[columns])
    for trial, kwh in zip(study.trials["trial"], study.trials["kwh"], strict=True):
        assert kwh == response(TrainConfig.model_validate(study.config_of(trial)))[-1]["kwh"]


def check_message(code, errors, path, *texts):
    lines = errors.strip().splitlines()
    assert code == 1 and "Traceback" not in errors, errors
    assert any(text in lines[0] for text in texts), errors
    assert lines[-1] == f"error: {path}: stopped; after mending it, go on with `sbp-tune resume {path}`"


@as_root
def test_a_full_disk(broken, disk, ray_address):
    def fill(path):
        with (disk / "other").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    code, errors = broken(disk, fill)
    check_message(code, errors, disk / "far", "No space left on device", "database or disk is full")
    (disk / "other").unlink()
    resumes(disk / "far", ray_address, finished_of(disk / "far"))


@as_root
def test_a_results_folder_that_becomes_read_only(broken, tmp_path, ray_address):
    def close(path):
        mount("--bind", path, path)
        mount("-o", "remount,bind,ro", path)

    path = tmp_path / "far"
    try:
        code, errors = broken(tmp_path, close)
        check_message(code, errors, path, "Read-only file system", "readonly database", "unable to open database")
        before = finished_of(path)
        refused = run(app, ["resume", str(path), "--address", ray_address])
        assert refused.exit_code == 2 and "Read-only file system" in refused.stderr
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
    resumes(path, ray_address, before)


def test_a_database_that_another_process_locks(broken, tmp_path, ray_address):
    holders = []

    def lock(path):
        connect = f"import sqlite3; c = sqlite3.connect({str(path / 'study.db')!r}, timeout=60)"
        holder = subprocess.Popen(
            [sys.executable, "-c", f"{connect}; c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout.readline() == "locked\n"
        holders.append(holder)

    path = tmp_path / "far"
    try:
        code, errors = broken(tmp_path, lock)
        check_message(code, errors, path, f"{path / 'study.db'}: database is locked")
    finally:
        for holder in holders:
            holder.communicate("\n")
    resumes(path, ray_address, finished_of(path))


def test_a_database_that_goes(broken, tmp_path, ray_address):
    path, away = tmp_path / "far", tmp_path / "away.db"
    code, errors = broken(tmp_path, lambda _: (path / "study.db").rename(away))
    gone = "the storage of this study is gone"
    check_message(code, errors, path, gone, "readonly database", "disk I/O error", "unable to open database")
    assert not (path / "study.db").exists()
    refused = run(app, ["resume", str(path)])
    assert refused.exit_code == 2 and f"{path}: not a study directory: it has no study.db" in refused.stderr
    away.rename(path / "study.db")
    resumes(path, ray_address, finished_of(path))
