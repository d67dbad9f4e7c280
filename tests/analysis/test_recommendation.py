"""Which trial is taken, on studies worked out by hand: dense curve (1 kWh, 0.80), (3 kWh, 0.90)."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from analysis import recommendation as module
from analysis.confirmed import confirmed_points
from analysis.recommendation import recommendation, unconfirmed_leads, words_of
from sbp_tune.files import write_atomic

NAN = math.nan
T2 = 4.302653  # Student's t, 2 degrees of freedom, 97.5 %


@pytest.fixture
def controls(build):
    return [build.control(0.80, 1.0, epochs=4), build.control(0.90, 3.0, epochs=8)]


def test_the_cheapest_of_those_as_good_as_dense_is_taken(build, controls):
    sparse = [build.sparse(0.895, 2.5), build.sparse(0.891, 2.4), build.sparse(0.87, 1.5)]
    found = recommendation(build.study(*controls, *sparse))
    assert (found.trial, found.near, found.confirmed, found.seeds) == (3, True, False, 1)
    # dense training reaches .891 with 1 + 2 * .91 = 2.82 kWh, and 0.87 with 2.4
    assert found.saving.mean == pytest.approx(1 - 2.4 / 2.82) and math.isnan(found.saving.low)
    assert found.lead.mean == pytest.approx(0.891 - 0.87)
    assert (found.dense_kwh, found.beyond, found.is_dense) == (3.0, False, False)


def test_where_none_is_as_good_the_largest_lead_is_taken(build, controls):
    found = recommendation(build.study(*controls, build.sparse(0.83, 1.5), build.sparse(0.87, 1.5)))
    assert (found.trial, found.near) == (3, False)


def test_where_none_is_above_dense_training_is_taken(build, controls):
    more = [build.control(0.895, 2.6), build.sparse(0.80, 2.0)]
    found = recommendation(build.study(*controls, *more))
    assert (found.trial, found.is_dense) == (2, True)
    assert found.saving.mean == pytest.approx(1 - 2.6 / 3) and math.isnan(found.lead.mean)


def test_what_no_control_reaches_is_compared_with_the_dearest(build, controls):
    found = recommendation(build.study(*controls, build.sparse(0.95, 2.0)))
    assert found.beyond and found.saving.mean == pytest.approx(1 / 3)


def test_cheaper_than_any_control_and_as_good_as_the_cheapest(build, controls):
    found = recommendation(build.study(*controls, build.sparse(0.80, 0.5)))
    assert found.saving.mean == pytest.approx(0.5) and not found.near


@pytest.mark.parametrize("trials", [[], [(0.9, NAN)], [(NAN, 1.0)]])
def test_without_a_control_nothing_is_taken(build, trials):
    controls = [build.control(accuracy, kwh) for accuracy, kwh in trials]
    assert recommendation(build.study(*controls, build.sparse(0.9, 1.0))) is None


def test_what_breaks_a_constraint_is_not_taken(build, controls):
    study = build.study(*controls, build.sparse(0.895, 2.0), build.sparse(0.895, 2.5))
    study.study["search"]["constraints"] = ["train_time_s <= 10"]
    study.trials["feasible"] = [True, True, False, True]
    assert recommendation(study).trial == 3


def runs_of(points):
    rows = [
        {"point": point, "seed": seed, "state": "complete", "gpu_uuid": None, "kwh": kwh, "test_accuracy": accuracy}
        | {"val_accuracy": accuracy, "train_time_s": kwh}
        for point, runs in points.items()
        for seed, (kwh, accuracy) in enumerate(runs)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def confirm(build, controls, tmp_path, monkeypatch):
    """A study whose repeats are given."""
    trials = [*controls, build.sparse(0.9, 2.0), build.sparse(0.9, 1.9), build.sparse(0.9, 2.5)]

    def confirmed(points):
        study = replace(build.study(*trials), path=tmp_path)
        table = confirmed_points(study, runs_of(points))
        write_atomic(study.path / "confirmed.parquet", lambda file: table.to_parquet(file))
        monkeypatch.setattr(module, "confirmed_runs", lambda study: runs_of(points))
        return study

    return confirmed


DENSE = {0: [(1.0, 0.70), (1.0, 0.72), (1.0, 0.74)], 1: [(3.0, 0.80), (3.0, 0.82), (3.0, 0.84)]}


def test_a_confirmed_saving_is_paired_by_seed(confirm):
    study = confirm(DENSE | {2: [(2.0, 0.77), (2.0, 0.78), (2.0, 0.81)]})
    found = recommendation(study)
    assert (found.trial, found.confirmed, found.seeds, found.near) == (2, True, 3, False)
    savings = [1 - 2 / 2.4, 1 - 2 / 2.2, 1 - 2 / 2.4]  # dense of the seed reaches it with 2.4, 2.2 and 2.4 kWh
    mean = sum(savings) / 3
    half = T2 * math.sqrt(sum((one - mean) ** 2 for one in savings) / 2 / 3)
    assert found.saving[:2] == (3, pytest.approx(mean)) and found.saving.high - mean == pytest.approx(half, rel=1e-5)
    assert found.accuracy.mean == pytest.approx(2.36 / 3) and found.accuracy_name == "test_accuracy"
    assert unconfirmed_leads(study) == [3, 4]


def test_single_runs_do_not_count_once_something_is_confirmed(confirm):
    found = recommendation(confirm(DENSE | {2: [(2.0, 0.74), (2.0, 0.78), (2.0, 0.79)]}))
    assert (found.trial, found.is_dense, found.confirmed) == (1, True, True)


def test_words_name_what_has_an_effect(build):
    schedule = {"sparsity__p0": 0.5, "sparsity__schedule": "linear", "sparsity__k": 0.02}
    study = build.study(
        build.control(0.8, 1.0, epochs=4, optimizer__lr=0.1, sparsity__p0=0.5),
        build.sparse(0.8, 1.0, epochs=8, optimizer__lr=0.2, **schedule),
    )
    assert words_of(study, 0) == "dense, 4 epochs, optimizer.lr 0.1"
    assert words_of(study, 1) == "batch_slice, p 0.5 linear, k 0.02, 8 epochs, optimizer.lr 0.2"
