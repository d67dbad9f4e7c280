"""What study files need, told without decoding or fetching anything."""

import json
import re

import pytest
from PIL import Image
from small_datasets import accept_any_checksum, write_all_flowers, write_cifar
from typer.testing import CliRunner

from sbp_tune.cli import app
from sbp_tune.study.file import load_study_file
from sbp_tune.study.needs import study_needs
from sbp_tune.vision import data
from search_spaces import shipped_spaces

SPACES = shipped_spaces()
BIG = {"big": {"CPU": 64.0, "GPU": 4.0}}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    data._load.cache_clear()
    monkeypatch.setenv("SBP_TUNE_CACHE", str(tmp_path / "cache"))


def run(*options, columns=500):
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(app, ["doctor", "--study", *options])


@pytest.mark.parametrize("name", SPACES)
def test_every_shipped_file(name, tmp_path):
    study = load_study_file(SPACES[name], [f"config.data.root={tmp_path / 'none'}"])
    needs = study_needs(study, BIG)
    assert json.loads(json.dumps(needs)) == needs  # plain data
    names = {one["name"].split(",")[0] for one in needs["data"]}
    points = [point for point in (*study.baselines, *study.grid) if point]
    assert names == {study.train_config(point)["data"]["name"] for point in points}
    missing = [one["name"] for one in needs["data"] if one["problem"]]
    assert (missing == []) is (name == "quickstart")
    assert all("config.data.root: " in line for line in needs["problems"])
    assert needs["placement"]["at_a_time"] > 0 and needs["placement"]["trials"] == study.total_trials
    result = run(name, "--set", f"config.data.root={tmp_path / 'none'}")
    assert result.exit_code in (0, 2) and "Traceback" not in result.output
    assert all(line.startswith("error: ") for line in result.stderr.splitlines())
    assert not (tmp_path / "none").exists() and not (tmp_path / "cache").exists()


def test_the_quickstart_runs_anywhere():
    result = run("quickstart")
    assert result.exit_code == 0, result.output
    assert "there: 10 classes, 1,797 images (1,079 train, 359 val, 359 test)" in result.output
    assert "digits: 460 kB decoded, in the memory of each trial" in result.output  # 1797 x 16 x 16
    assert "A trial takes 1 CPU and 0 GPU and trains on cpu; 21 trials" in result.output


def test_the_papers_data_sets_are_counted(tmp_path, monkeypatch):
    for name in ("cifar10", "cifar100"):
        write_cifar(name, tmp_path)
        accept_any_checksum(name, monkeypatch)
    write_all_flowers(tmp_path)
    accept_any_checksum("flowers102", monkeypatch)
    overrides = [f"config.data.root={tmp_path}", "cases.flowers102.data.val_fraction=0.34"]
    needs = study_needs(load_study_file(SPACES["sparse_backprop_2025"], overrides), BIG)
    found = {one["name"]: [one[key] for key in ("classes", "train", "val", "test", "bytes")] for one in needs["data"]}
    assert found["cifar10"] == [10, 225, 25, 50, 300 * 3 * 32 * 32]
    assert found["cifar100"] == [100, 400, 100, 500, 1000 * 3 * 32 * 32]
    assert found["flowers102"] == [102, 202, 104, 102, 408 * 3 * 224 * 224]
    assert needs["problems"] == [] and not (tmp_path / "cache").exists()
    assert [one["decoded"] is not None for one in needs["data"]] == [False, False, True]


def test_what_would_be_fetched_is_no_problem(tmp_path):
    overrides = [f"config.data.root={tmp_path}", "config.data.download=true"]
    needs = study_needs(load_study_file(SPACES["sparse_backprop_2025"], overrides), BIG)
    assert all(one["problem"] and one["fetched"] for one in needs["data"]) and needs["problems"] == []
    assert list(tmp_path.iterdir()) == []


def photos(root, classes=3):
    for label in range(classes):
        (root / f"c{label}").mkdir(parents=True)
        for index in range(5):
            Image.new("RGB", (12, 9), (label, index, 0)).save(root / f"c{label}" / f"{index}.png")
    return root


def test_a_folder_of_images(tmp_path):
    root = photos(tmp_path / "photos")
    options = ["--set", f"config.data={{name: image_folder, root: {root}, image_size: 8, class_count: 2}}"]
    result = run("quickstart", *options)
    assert result.exit_code == 0, result.output
    assert "there: 2 classes, 10 images (6 train, 2 val, 2 test)" in result.output
    assert re.search(
        r"image_folder, 2 classes: 1.92 kB decoded, in one file .*which the first trial writes", result.output
    )
    assert not (tmp_path / "cache").exists()


def test_a_disk_that_is_too_small_is_told_before(tmp_path, monkeypatch):
    from sbp_tune.study import needs as module

    root = photos(tmp_path / "photos")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    study = load_study_file(SPACES["quickstart"], [f"config.data={{name: image_folder, root: {root}, image_size: 8}}"])
    assert "decodes to 2.88 kB, but" in study_needs(study)["problems"][0]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["none.yaml"], "none.yaml: no such file"),
        (["quickstart", "--set", "config.epocs=3"], "config.epocs: unknown key"),
        (["quickstart", "--set", "resources.cpu=4096"], "a trial asks for cpu 4096 and gpu 0 on one node"),
        (
            ["quickstart", "--set", "config.data={name: image_folder, root: /nowhere}"],
            "config.data.root: /nowhere: no such",
        ),
        (["quickstart", "--calibrate"], "--study: found beside --calibrate"),
    ],
)
def test_what_is_missing_is_one_line_and_exit_code_2(options, problem):
    result = run(*options)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and problem in lines[0]


def test_set_alone_is_refused():
    result = CliRunner().invoke(app, ["doctor", "--set", "a=1"])
    assert result.exit_code == 2 and "is for --study" in result.stderr
