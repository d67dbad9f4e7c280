import math

import pytest

from analysis.conclusion import conclusion
from analysis.controls import compare_with_dense, dense_curve
from analysis.energy_bill import energy_bill_info
from analysis.pareto import trial_front
from analysis.picks import pick_trial
from analysis.trials import useful


@pytest.fixture
def controls(build):
    return [build.control(0.80, 1.0), build.control(0.90, 3.0), build.control(0.70, 2.0), build.control(0.85, 4.0)]


def test_a_wasteful_control_does_not_lower_the_curve(build, controls):
    not_controls = [build.control(0.99, 1.0, state="stopped"), build.sparse(0.99, 1.0, kind="baseline")]
    curve = dense_curve(build.study(*controls, *not_controls, build.control(math.nan, 1.0)))
    assert curve["kwh"].tolist() == [1, 3, 4]
    assert curve["val_accuracy"].tolist() == [0.80, 0.90, 0.90]


def test_a_dense_trial_that_the_search_proposed_is_a_control_too(build, controls):
    tuned = build.trial("dense", val_accuracy=0.95, kwh=2.0)
    study = build.study(*controls, tuned, build.sparse(0.92, 2.0))
    assert dense_curve(study)["val_accuracy"].tolist() == [0.80, 0.95, 0.95]
    assert compare_with_dense(study)["verdict"].tolist() == ["not above"]


@pytest.mark.parametrize(
    ("accuracy", "kwh", "verdict", "lead"),
    [
        (0.885, 2.5, "above", 0.01),
        (0.875, 2.5, "not above", 0.0),  # on the line
        (0.865, 2.5, "not above", -0.01),
        (0.91, 3.5, "above", 0.01),  # a dense control cost more and gained nothing
        (0.91, 3.0, "above", 0.01),
        (0.80, 0.9, "above", 0.0),  # no worse, for less
        (0.79, 0.9, "no control", -0.01),
        (0.91, 5.0, "no control", 0.01),
        (0.90, 5.0, "not above", 0.0),
    ],
)
def test_verdict_against_the_curve(build, controls, accuracy, kwh, verdict, lead):
    row = compare_with_dense(build.study(*controls, build.sparse(accuracy, kwh))).iloc[0]
    assert (row["trial"], row["verdict"]) == (4, verdict)
    assert row["lead"] == pytest.approx(lead)


def test_only_complete_sparse_trials_are_compared(build, controls):
    others = [
        build.sparse(0.99, 2.0, state="stopped"),
        build.trial("dense", val_accuracy=0.99, kwh=2.0),
        build.sparse(0.99, math.nan),
    ]
    assert compare_with_dense(build.study(*controls, *others)).empty


def test_without_controls_nothing_is_above(build):
    assert compare_with_dense(build.study(build.sparse(0.9, 1.0)))["verdict"].tolist() == ["no control"]


def test_equal_controls_are_one_point_of_the_curve(build):
    curve = dense_curve(build.study(build.control(0.8, 1.0), build.control(0.8, 1.0), build.control(0.7, 1.0)))
    assert curve.to_numpy().tolist() == [[1.0, 0.8]]


def text_of(study):
    return " ".join(conclusion(study))


def test_conclusion_names_the_largest_lead(build, controls):
    energy = {"kwh_measured_share": 0.5}
    sparse = [build.sparse(0.885, 2.5, **energy), build.sparse(0.895, 2.5, **energy), build.sparse(0.1, 0.1)]
    text = text_of(build.study(*controls, *sparse, build.trial(state="failed")))
    assert "8 trials: 7 complete, 0 stopped early, 1 failed." in text
    assert "trial 1 (dense): 90.00 % validation accuracy for 3.00 kWh" in text
    assert "2 sparse trials lie above the dense control curve." in text
    assert "trial 5 (batch_slice): 89.50 % for 2.50 kWh, 2.00 percentage points more" in text
    assert "1 sparse trial used less or more energy than any dense control" in text
    assert "one seed" in text
    assert "The energy of 1 trial is not known." in text


def test_conclusion_says_plainly_when_nothing_is_gained(build, controls):
    assert "No sparse trial lies above the dense control curve." in text_of(
        build.study(*controls, build.sparse(0.7, 2.0))
    )
    assert "no complete dense control" in text_of(build.study(build.sparse(0.7, 2.0)))
    assert "No sparse trial is complete" in text_of(build.study(*controls))


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "No energy was measured: all of it comes from a model."),
        (0.25, "25.0 % of the energy was measured, the rest comes from a model."),
        (1.0, "All energy was measured."),
        (math.nan, "Which part of the energy was measured is not known."),
    ],
)
def test_conclusion_labels_the_energy(build, share, text):
    assert text in text_of(build.study(build.sparse(0.7, 2.0, kwh_measured_share=share)))


def test_conclusion_of_unfinished_studies(build):
    assert text_of(build.study()) == "0 trials: 0 complete, 0 stopped early, 0 failed. No energy was recorded."
    assert "1 still running" in text_of(build.study(build.trial(state="running", val_accuracy=0.5)))


def test_a_lead_that_may_come_from_another_setting_says_so(build):
    controls = [build.control(accuracy, kwh, optimizer__lr=0.1, epochs=kwh) for accuracy, kwh in ((0.7, 1), (0.8, 3))]
    tuned = build.study(*controls, build.sparse(0.79, 2.0, optimizer__lr=0.3, epochs=2))
    same = build.study(*controls, build.sparse(0.79, 2.0, optimizer__lr=0.1, epochs=2))
    warning = "differs from every dense control in optimizer.lr too, so its lead need not come from sparsity"
    assert warning in " ".join(conclusion(tuned))
    assert "lies above" in " ".join(conclusion(same)) and warning not in " ".join(conclusion(same))


def test_what_a_crash_wasted_is_on_the_bill_but_not_held_against_a_config(build, controls):
    crashed, wasteful = build.sparse(0.92, 4.0, kwh_wasted=2.5), build.sparse(0.88, 2.0, kwh_wasted=0.0)
    study = build.study(*controls, crashed, wasteful)
    row = compare_with_dense(study).iloc[0]
    assert (row["kwh"], row["verdict"]) == (pytest.approx(1.5), "above")
    assert 4 in trial_front(study)["trial"].tolist() and pick_trial(study, "min-energy")["trial"] == 0
    assert useful(study, "kwh").tolist() == pytest.approx([1, 3, 2, 4, 1.5, 2])
    assert energy_bill_info(study).total["kwh"] == 16


def test_energy_that_was_all_wasted_and_waste_that_is_not_known(build):
    trials = [build.sparse(0.9, 2.0, kwh_wasted=2.0, co2_kg=1.0), build.sparse(0.9, 2.0, kwh_wasted=math.nan)]
    assert useful(build.study(*trials), "kwh").tolist() == [0, 2]
    assert useful(build.study(*trials), "co2_kg").tolist()[0] == 0
