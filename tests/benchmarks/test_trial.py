import argparse
import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import accuracy
from benchmarks.loops import SHIPPED, linked_images
from benchmarks.trial import arms, main
from sbp_tune.config import TrainConfig
from sbp_tune.errors import InputError
from sbp_tune.files import read_yaml
from search_spaces import shipped_spaces

TINY = ["--model", "small_cnn", "--stem", "imagenet", "--images", "14", "--val-images", "6", "--batch-size", "4"]
QUICK = [*TINY, "--rounds", "1", "--workers", "0", "--device", "cpu", "--threads", "1"]


@pytest.fixture
def images(tmp_path, monkeypatch):
    """train/ with 6 images of 3 classes, test/ with 2 of each, 16 px."""
    monkeypatch.setenv("SBP_TUNE_CACHE", str(tmp_path / "cache"))  # main changes it
    random = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for name in "abc":
            folder = tmp_path / "source" / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "source"


def test_json_has_every_arm_and_where_our_time_goes(images, tmp_path, capsys):
    chosen = ["--arms", "plain_amp", "sbp_tune", "sbp_tune_contiguous", "bare"]
    main([*QUICK, *chosen, "--data-root", str(images), "--json", "-o", str(tmp_path / "out")])
    result = json.loads(capsys.readouterr().out)
    rows = {row["arm"]: row for row in result["arms"]}
    assert list(rows) == ["plain", "plain_amp", "sbp_tune", "sbp_tune_contiguous", "bare"]
    assert rows["plain"]["speedup"] == 1 and rows["bare"]["images_per_second"] > 0
    for name in ("plain", "plain_amp", "sbp_tune"):
        assert rows[name]["images_per_second_min"] <= rows[name]["images_per_second"] and rows[name]["speedup"] > 0
        assert len(rows[name]["val_accuracy"]) == 2 and all(0 <= value <= 1 for value in rows[name]["val_accuracy"])
        assert rows[name]["core_s"] > 0
    layouts = {name: rows[name]["memory_format"] for name in rows if name.startswith("sbp_tune")}
    assert layouts == {"sbp_tune": "channels_last", "sbp_tune_contiguous": "contiguous"}
    assert rows["sbp_tune_contiguous"]["precision"] == "fp32"
    assert sum(rows["sbp_tune"]["shares_of_training"].values()) == pytest.approx(1)
    assert result["versions"]["torch"] == torch.__version__ and result["device"] and result["images"] == 14
    [file] = (tmp_path / "out").iterdir()
    assert json.loads(file.read_text()) == result


def test_all_arms_start_from_the_same_weights_and_see_the_same_images(images, tmp_path):
    linked_images(images, tmp_path / "linked", images=14, val_images=6)
    options = argparse.Namespace(
        **{"model": "small_cnn", "stem": "imagenet", "batch_size": 4, "lr": 0.05, "rounds": 1, "image_size": None},
        **{"workers": 0, "arms": ["plain", "plain_amp", "sbp_tune"]},
    )
    plain, amp, ours = (arm.make() for arm in arms(options, tmp_path / "linked", torch.device("cpu")))
    expected = ours.training.model.state_dict()
    for loop in (plain.loop, amp.loop):
        assert all(torch.equal(value, expected[name]) for name, value in loop.model.state_dict().items())
        assert len(loop._train.dataset) == len(ours.training.data.train) == 14
        assert len(loop._val.dataset) == len(ours.training.data.val) == 6
    assert loop._train.dataset.classes == list(ours.training.data.classes)
    assert len(list((tmp_path / "linked/train/a").iterdir())) == 5  # 14 over 3 classes: 5, 5, 4


def test_what_is_missing_is_a_line(images, tmp_path, monkeypatch):
    monkeypatch.delenv("SBP_TUNE_CIFAR10", raising=False)
    with pytest.raises(SystemExit, match="error: --data-root: missing"):
        main(QUICK)
    with pytest.raises(SystemExit, match=r"error: --data-root: .*a: has 6 images, needs 34"):
        main([*QUICK, "--data-root", str(images), "--images", "100"])
    with pytest.raises(InputError, match="needs test/"):
        (images / "test").rename(images / "elsewhere")
        linked_images(images, tmp_path / "linked", images=14, val_images=6)


def test_a_table(images, capsys):
    main([*QUICK, "--data-root", str(images)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["arm", "plain", "plain_amp", "sbp_tune"]


def test_our_arm_has_the_settings_of_the_shipped_search():
    shipped = read_yaml(shipped_spaces()["resnet18_cifar10"])["config"]
    default = TrainConfig().model_dump()
    assert {name: shipped.get(name, default[name]) for name in SHIPPED} == SHIPPED


def test_accuracies_of_both_loops_with_an_interval(images, tmp_path, capsys):
    small = ["--model", "small_cnn", "--images", "14", "--val-images", "6", "--batch-size", "4", "--workers", "0"]
    accuracy.main([*small, "--epochs", "2", "--seeds", "2", "--device", "cpu", "--data-root", str(images)])
    result = json.loads(capsys.readouterr().out)
    rows = result["by_seed"]
    assert len(rows) == 2 and all(0 <= value <= 1 for row in rows for value in row.values())
    difference = 100 * np.mean([row["sbp_tune"] - row["plain"] for row in rows])
    assert result["mean"]["difference"] == pytest.approx(difference, abs=1e-3)
    low, high = result["difference_interval"]
    assert low - 1e-3 <= difference <= high + 1e-3
