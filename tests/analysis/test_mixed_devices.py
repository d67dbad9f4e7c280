"""A study whose trials ran on several types of device is compared within one of them, and says so."""

import dataclasses

import pandas as pd
import pytest

from analysis.conclusion import conclusion
from analysis.controls import compare_with_dense, dense_curve
from analysis.energy_bill import energy_bill_info
from analysis.figures import hypervolume_info, pareto_front_info, saving_info
from analysis.pareto import study_hypervolume, trial_front
from analysis.picks import pick_trial
from analysis.recommendation import recommendation
from analysis.report import write_comparison, write_report
from sbp_tune.errors import InputError
from sbp_tune.study.device_types import mixed_devices, shown_device, with_device
from sbp_tune.study.results import _devices

T4, A10 = "Tesla T4", "NVIDIA A10G"
SEARCHED = {"epochs": 4, "sparsity__p0": 0.5}


def of_t4(build):
    return [
        build.control(0.80, 4.0, device=T4, epochs=4),
        build.control(0.70, 2.0, device=T4, epochs=2),
        build.sparse(0.79, 3.0, device=T4, **SEARCHED),
    ]


def of_a10(build):
    """As accurate, for a tenth of the energy: against the T4's controls all of these would be savings."""
    return [
        build.control(0.80, 0.4, device=A10, epochs=4),
        build.sparse(0.72, 0.39, device=A10, **SEARCHED),
        build.sparse(0.73, 0.38, device=A10, **SEARCHED),
        build.sparse(0.74, 0.37, device=A10, **SEARCHED),
    ]


@pytest.fixture
def mixed(build):
    return build.study(*of_t4(build), *of_a10(build))


@pytest.fixture
def alone(build):
    return build.study(*of_t4(build))


def test_the_type_of_most_dense_controls_is_shown(mixed, alone):
    assert shown_device(mixed) == T4 and mixed_devices(alone) is None
    assert shown_device(with_device(mixed, A10)) == A10
    with pytest.raises(InputError, match=r"--device: found 'H100'; .* ran on: Tesla T4, NVIDIA A10G"):
        with_device(mixed, "H100")


def test_all_that_compares_is_as_if_the_others_had_not_run(mixed, alone):
    assert trial_front(mixed)["trial"].tolist() == trial_front(alone)["trial"].tolist() == [1, 2, 0]
    assert study_hypervolume(mixed) == study_hypervolume(alone)
    for found in (dense_curve, compare_with_dense):
        pd.testing.assert_frame_equal(found(mixed), found(alone))
    assert recommendation(mixed) == recommendation(alone)
    assert pick_trial(mixed, "knee")["trial"] == pick_trial(alone, "knee")["trial"]
    assert pick_trial(mixed, "max-drop=5")["trial"] == pick_trial(alone, "max-drop=5")["trial"] == 2
    pd.testing.assert_frame_equal(pareto_front_info(mixed).points, pareto_front_info(alone).points)
    pd.testing.assert_frame_equal(saving_info(mixed).saving, saving_info(alone).saving)
    history = [hypervolume_info(study).history["hypervolume"].iloc[-1] for study in (mixed, alone)]
    assert history[0] == pytest.approx(history[1])


def test_another_type_is_shown_where_it_is_chosen(mixed, build):
    shown, alone = with_device(mixed, A10), build.study(*of_a10(build))
    assert (trial_front(shown)["trial"] - 3).tolist() == trial_front(alone)["trial"].tolist()
    assert recommendation(shown).saving == recommendation(alone).saving


def test_objectives_of_no_device_are_compared_over_all(build):
    trials = [build.sparse(0.8, 1.0, tflop=2.0, device=T4), build.sparse(0.7, 1.0, tflop=1.0, device=A10)]
    study = build.study(*trials, objectives={"val_accuracy": "max", "tflop": "min"})
    assert trial_front(study)["trial"].tolist() == [1, 0]


def test_the_bill_is_of_all(mixed, alone):
    groups = energy_bill_info(mixed).groups
    assert groups.loc["On another type of device", "trials"] == 4
    assert groups["kwh"].sum() == pytest.approx(mixed.trials["kwh"].sum())
    assert "On another type of device" not in energy_bill_info(alone).groups.index


def test_a_trial_that_went_over_to_another_type_compares_with_neither():
    epochs = pd.DataFrame({"trial": [0, 0, 1, 1, 2], "device": [T4, T4, T4, A10, None]})
    assert _devices(epochs) == {0: T4, 1: f"{T4} + {A10}"}


def test_the_first_screen_says_which_types_ran_and_how_to_see_the_other(mixed, tmp_path):
    study = dataclasses.replace(mixed, path=tmp_path / "demo")
    study.path.mkdir()
    html = write_report(study, tmp_path / "report.html").read_text()
    first = html[: html.index("The rule:")]
    assert "Its complete trials ran on 2 types of device: Tesla T4 (3), NVIDIA A10G (4)." in first
    assert "are of Tesla T4 alone" in first and "--device" in first
    assert "trial 2" in first and "trial 6" not in first
    other = write_report(with_device(study, A10), tmp_path / "other.html").read_text()
    assert "are of NVIDIA A10G alone" in other[: other.index("The rule:")]


def test_a_comparison_says_it_of_each_study(mixed, build, tmp_path):
    other = dataclasses.replace(build.study(*of_a10(build), name="other"), path=tmp_path / "other")
    html = write_comparison([mixed, other], tmp_path / "both.html").read_text()
    assert "demo: Its complete trials ran on 2 types of device" in html
    assert "The studies ran on different types of device (demo: Tesla T4; other: NVIDIA A10G)" in html


def test_the_most_accurate_is_of_the_shown_type(build):
    study = build.study(*of_t4(build), build.sparse(0.99, 0.1, device=A10))
    assert "most accurate complete trial is trial 0" in " ".join(conclusion(study))
