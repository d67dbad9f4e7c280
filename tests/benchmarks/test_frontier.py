from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.frontier import leads
from benchmarks.frontier.__main__ import main
from benchmarks.frontier.contest import at_cost, entries
from benchmarks.frontier.jobs import Result
from benchmarks.frontier.picture import draw
from benchmarks.frontier.table import text
from sbp_tune.files import read_yaml

PRESETS = Path(__file__).parents[2] / "benchmarks" / "frontier"
TINY = """
trials: 2
regimes:
  short:
    epochs: 20
    data: {name: image_folder, image_size: 8, classes: [a, b], batch_size: 8}
    model: {name: small_resnet, args: {width: 8}, weights: pretraining}
    optimizer: {lr: {log_uniform: [0.01, 0.1]}}
pretraining:
  epochs: 1
  data: {name: image_folder, image_size: 8, classes: [b, c], batch_size: 8}
  model: {name: small_resnet, args: {width: 8}}
"""


def result(accuracy: float, tflop: float, seconds: float = 1.0) -> Result:
    return Result(accuracy, accuracy, tflop, seconds, None, None)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for grey, name in enumerate("abc"):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for number in range(20):
                pixels = (80 * grey + random.integers(0, 80, (8, 8, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "images"


@pytest.mark.slow
def test_a_contest_from_tuning_to_picture_and_resumed(images, tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(TINY)
    work = tmp_path / "work"
    arguments = ["--data", str(images), "--preset", str(tmp_path / "tiny.yaml"), "--arms", "prefix", "--seeds", "2"]
    arguments += ["--fresh-seeds", "2", "--workers", "1", "--work", str(work), "-o", str(work)]
    main(arguments)
    printed = capsys.readouterr().out
    [csv], [html] = work.glob("frontier_*_tiny.csv"), work.glob("frontier_*_tiny.html")
    found = pd.read_csv(csv)
    assert list(found["arm"]) == [f"dense {share} %" for share in (25, 40, 50, 75, 100)] + ["prefix"]
    assert found["tflop_ratio"].iloc[[0, 4]].tolist() == [0.25, 1.0] and found["tflop_ratio"].iloc[5] < 1
    assert (found["seeds"] == 2).all() and found["tflop_lead"].notna().tolist() == [False] * 5 + [True]
    assert "prefix" in json.loads(found["tuned"].iloc[5]) or "optimizer.lr" in json.loads(found["tuned"].iloc[5])
    assert "short" in printed and "plotly" in html.read_text().lower()
    runs = (work / "runs.jsonl").read_text()
    assert len(runs.splitlines()) >= 6 * (2 + 2)
    main(arguments)
    assert (work / "runs.jsonl").read_text() == runs  # nothing ran again
    pd.testing.assert_frame_equal(pd.read_csv(csv), found)


def test_without_images_it_says_what_it_needs(tmp_path):
    with pytest.raises(SystemExit, match=f"--data: {tmp_path}: needs class folders under train/"):
        main(["--data", str(tmp_path)])


@pytest.mark.parametrize("preset", ["quick", "full"])
def test_every_arm_of_every_regime_is_a_valid_space(preset):
    regimes = read_yaml(PRESETS / f"{preset}.yaml")["regimes"]
    assert set(regimes) == {"short", "long", "fine_tuning"}
    for name, base in regimes.items():
        names = [entry.name for entry in entries(name, base) if entry.space.point({})]
        assert len(names) == len(set(names)) >= 5 + 12


def test_every_estimator_competes():
    from sbp_tune.config import plugin_names

    arms = read_yaml(PRESETS / "arms.yaml")
    assert {arm["estimator"] for arm in arms.values()} == set(plugin_names("sparsity/estimators")) - {"dense"}


def test_dense_of_at_most_a_cost():
    curve = [(3.0, 0.4), (1.0, 0.2), (2.0, 0.5)]
    assert at_cost(curve, 1.5) == pytest.approx(0.35)
    assert at_cost(curve, 3.0) == 0.5 and at_cost(curve, 9.0) == 0.5  # dense training may stop at 2
    assert at_cost(curve, 0.5) == 0.2 and at_cost([], 1.0) == 0


def test_leads_are_paired_by_seed():
    cheap = {seed: result(0.50 + 0.01 * seed, 1.0) for seed in range(3)}
    dear = {seed: result(0.60 + 0.01 * seed, 3.0) for seed in range(3)}
    worse = {seed: result(0.40, 2.0) for seed in range(3)}  # dominated: not part of the curve
    arm = {seed: result(0.57 + 0.01 * seed, 2.0) for seed in range(3)}
    found = leads.lead(arm, [cheap, worse, dear], "tflop")
    assert found.mean == pytest.approx(2) and found.low == pytest.approx(2) and found.verdict == "above"
    assert leads.covered(arm, [cheap], "tflop") and not leads.covered(arm, [dear], "tflop")
    diverged = {**arm, 0: Result(None, None, 2.0, 1.0, None, None)}
    assert leads.lead(diverged, [cheap, dear], "tflop").mean < 0


def test_an_interval_of_three_is_students():
    found = leads.estimate([1.0, 2.0, 3.0])
    assert found.high - 2 == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4) and found.verdict == "undecided"
    assert leads.estimate([1.0]).low == -math.inf
    assert leads.estimate([-1.0, -1.1, -1.2]).verdict == "below"


def test_the_words_follow_the_fresh_seeds():
    rows = pd.DataFrame(
        {
            "regime": "short",
            "arm": ["dense 100 %", "grid", "layer"],
            "accuracy": [50.0, 51.0, 52.0],
            "accuracy_high": [51.0, 52.0, 53.0],
            "tflop_ratio": [1.0, 0.8, 0.8],
            "seconds_ratio": [1.0, 0.9, 0.9],
            **{
                f"{axis}_lead{end}": [math.nan, 1.0, 2.0]
                for axis in ("tflop", "seconds")
                for end in ("", "_low", "_high")
            },
            "tflop_verdict": [None, "above", "above"],
            "tflop_fresh_lead": [math.nan, -0.2, 1.5],
            "tflop_fresh_low": [math.nan, -1.0, 1.0],
            "tflop_fresh_high": [math.nan, 0.6, 2.0],
        }
    )
    said = text(rows)
    assert "short: above the dense control of its FLOPs: layer by 1.50 points (1.00 to 2.00)." in said
    assert "Nowhere shown to lie above: grid." in said
    names = {trace.name for trace in draw(rows).data}
    assert len(names) == 3
