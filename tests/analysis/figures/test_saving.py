import math

import numpy as np
import pytest

from analysis.controls import compare_with_dense
from analysis.figures import plot_saving, saving_info


def at(table, column, value):
    return table[np.isclose(table[column], value, rtol=0, atol=1e-12)]


@pytest.fixture
def study(build):
    return build.study(
        build.control(0.80, 1.0),
        build.control(0.90, 3.0),
        build.trial("grid", val_accuracy=0.85, kwh=1.0),
        build.trial("grid", val_accuracy=0.88, kwh=2.0),
        build.trial("grid", val_accuracy=0.82, kwh=2.5),  # dominated
        build.trial("grid", val_accuracy=0.99, kwh=0.1, state="stopped"),
        build.trial("mask", val_accuracy=0.80, kwh=2.0),
        build.trial("mask", val_accuracy=math.nan, kwh=2.0),
    )


def test_saving_at_equal_accuracy_by_hand(study):
    saving = saving_info(study).saving
    grid, mask = saving[saving["estimator"] == "grid"], saving[saving["estimator"] == "mask"]
    # dense reaches 0.85 for 2 kWh and 0.88 for 2.6
    step = at(grid, "val_accuracy", 0.85)
    assert step["saving"].iloc[:2].tolist() == pytest.approx([0.5, 0.5])
    assert step["trial"].tolist()[-1] == 3  # just above, only the dearer trial is accurate enough
    assert step["saving"].iloc[-1] == pytest.approx(0.0)
    assert at(grid, "val_accuracy", 0.88)["saving"].iloc[0] == pytest.approx(1 - 2 / 2.6)
    assert grid["val_accuracy"].max() == 0.88
    assert (mask["val_accuracy"].tolist(), mask["saving"].tolist()) == ([0.80], [-1.0])


def test_gain_at_equal_energy_by_hand(study):
    gain = saving_info(study).gain
    grid = gain[gain["estimator"] == "grid"]
    assert at(grid, "kwh", 1.0)["gain"].iloc[0] == pytest.approx(0.05)
    assert at(grid, "kwh", 2.0)["gain"].iloc[-1] == pytest.approx(0.03)
    assert at(grid, "kwh", 2.0)["gain"].iloc[0] == pytest.approx(0.0)  # just below, the cheaper trial
    assert at(grid, "kwh", 3.0)["gain"].iloc[0] == pytest.approx(-0.02)
    assert (grid["kwh"].min(), grid["kwh"].max()) == (1.0, 3.0)  # no further than dense runs went


def test_gain_agrees_with_the_comparison_behind_every_claim(study):
    gain, compared = saving_info(study).gain, compare_with_dense(study).set_index("trial")
    for trial in (2, 3, 6):
        own = gain[(gain["trial"] == trial) & np.isclose(gain["kwh"], compared["kwh"][trial], rtol=1e-12)]
        assert own["gain"].iloc[-1] == pytest.approx(compared["lead"][trial])


@pytest.mark.parametrize(
    ("accuracy", "kwh", "problem"),
    [
        (0.5, 0.5, None),  # less accurate, but gains where it may use as much
        (0.95, 5.0, None),  # dearer than all controls, but saves nothing and says so
        (0.5, 5.0, "No sparse trial is as accurate"),
    ],
)
def test_outside_of_the_controls(build, accuracy, kwh, problem):
    info = saving_info(build.study(build.control(0.8, 1.0), build.control(0.9, 3.0), build.sparse(accuracy, kwh)))
    assert info.problem is None if problem is None else info.problem.startswith(problem)


def test_equal_controls_and_a_flat_curve(build):
    study = build.study(
        build.control(0.8, 1.0), build.control(0.8, 1.0), build.control(0.7, 2.0), build.sparse(0.8, 0.5)
    )
    info = saving_info(study)
    assert at(info.saving, "val_accuracy", 0.8)["saving"].tolist() == pytest.approx([0.5])
    assert info.gain["gain"].tolist() == pytest.approx([0] * len(info.gain))
    assert info.gain["kwh"].max() == 2.0


def test_nothing_to_compare(build):
    assert "No dense control" in saving_info(build.study(build.sparse(0.9, 1.0))).problem
    assert "No sparse trial has finished" in saving_info(build.study(build.control(0.9, 1.0))).problem
    assert "No dense control" in saving_info(build.study()).problem


def test_the_figure_has_a_line_an_estimator_in_both_panels(study):
    names = [trace.name for trace in plot_saving(study).data if trace.showlegend]
    assert sorted(names) == ["dense control", "grid", "mask"]
    assert plot_saving(study).layout.yaxis.range[0] == -105
