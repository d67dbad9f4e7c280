import math

import pandas as pd
import pytest

from analysis.export import export_config, pick_trial
from sbp_tune.config import check_config, load_config
from sbp_tune.errors import InputError

NAN = math.nan


@pytest.fixture
def study(build):
    return build.study(
        build.control(0.90, 10.0),
        build.sparse(0.895, 4.0),
        build.sparse(0.80, 2.0),
        build.sparse(0.90, 12.0),
        build.sparse(0.70, 3.0),
        build.sparse(0.99, 0.1, state="stopped"),
        build.trial(state="failed"),
        build.sparse(0.91, NAN),
    )


@pytest.mark.parametrize(
    ("pick", "trial"),
    [
        ("knee", 1),
        ("max-accuracy", 7),
        ("min-energy", 2),
        ("max-drop=0", 0),
        ("max-drop=0.5", 1),
        ("max-drop=10", 2),
        ("max-drop=100", 2),
        ("trial=4", 4),
        ("trial=t3", 3),
    ],
)
def test_picks(study, pick, trial):
    assert pick_trial(study, pick)["trial"] == trial


def test_max_accuracy_prefers_less_energy_and_known_energy(build):
    trials = [build.sparse(0.9, NAN), build.sparse(0.9, 2.0), build.sparse(0.9, 1.0), build.sparse(0.9, 1.0)]
    assert pick_trial(build.study(*trials), "max-accuracy")["trial"] == 2


def test_max_drop_without_a_control_is_from_the_best_trial(build):
    study = build.study(build.sparse(0.95, 3.0), build.sparse(0.94, 2.0), build.sparse(0.93, 1.0))
    assert pick_trial(study, "max-drop=1")["trial"] == 1


@pytest.mark.parametrize(
    ("pick", "message"),
    [
        ("best", "found 'best'; possible: knee, max-accuracy"),
        ("knee=2", "possible: knee"),
        ("max-drop", "max-drop=PP"),
        ("trial", "trial=ID"),
        ("", "possible"),
        ("max-drop=one", "percentage points from 0 to 100"),
        ("max-drop=-1", "percentage points from 0 to 100"),
        ("max-drop=nan", "percentage points from 0 to 100"),
        ("trial=99", "no such trial; complete trials: 0, 1, 2, 3, 4, 7"),
        ("trial=5", "this trial is stopped"),
        ("trial=t6", "this trial is failed"),
    ],
)
def test_impossible_picks_say_what_is_possible(study, pick, message):
    with pytest.raises(InputError, match=message) as raised:
        pick_trial(study, pick)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("pick", ["knee", "max-accuracy", "min-energy", "max-drop=1"])
def test_a_study_without_a_complete_trial_says_what_it_has(build, pick):
    with pytest.raises(InputError, match=r"no complete trial to pick \(1 failed\)"):
        pick_trial(build.study(build.trial(state="failed")), pick)
    with pytest.raises(InputError, match="no trial at all"):
        pick_trial(build.study(), pick)


@pytest.mark.parametrize("pick", ["knee", "max-accuracy", "min-energy", "max-drop=1"])
def test_trials_without_values_are_never_picked(build, pick):
    with pytest.raises(InputError, match=pick.partition("=")[0]):
        pick_trial(build.study(build.trial()), pick)


@pytest.fixture
def trained(build):
    values = {"val_accuracy": 0.9, "kwh": 1.23e-5, "kwh_measured_share": 0.5, "co2_kg": 4e-6, "device": "cpu"}
    config = {"optimizer__lr": 1e-5, "optimizer__betas": [0.5, 0.75], "epochs": 3, "sparsity__p0": 0.3}
    return build.trial("mask", **values, **config)


def test_an_exported_config_is_the_trial_again(build, trained, tmp_path):
    study = build.study(trained)
    output = export_config(study, "trial=0", tmp_path / "sub" / "best.yaml")
    assert load_config(output) == check_config(study.config_of(0), source="trial 0")
    text = output.read_text()
    assert text.startswith(f"# sbp-tune train {output}\n")
    assert "# trial: 0 (t0), picked by trial=0\n" in text
    assert "# val_accuracy: 90.00 %\n" in text
    assert "# energy: 12.3 mWh (50 % measured), CO2eq 4.00 mg\n" in text
    assert "# device: cpu\n" in text
    assert "torch 2.11.0" in text


def test_an_exported_file_may_be_replaced(build, trained, tmp_path):
    output = tmp_path / "best.yaml"
    output.write_text("old")
    export_config(build.study(trained), "knee", output)
    assert load_config(output).epochs == 3
    assert list(tmp_path.iterdir()) == [output]


def test_names_cannot_break_out_of_the_comments(build, trained, tmp_path):
    name = "a\nepochs: 99\r\x85x: 1\u2028y: 2\x00\x1b[31m\ud800\ufeff"
    study = build.study(trained | {"device": name.replace("\ud800", "")}, name=name)
    output = export_config(study, "knee", tmp_path / "best.yaml")
    assert load_config(output).epochs == 3
    assert "# study: a epochs: 99 x: 1 y: 2 [31m\n" in output.read_text()


def test_a_config_that_is_none_of_ours_is_an_input_error(build, tmp_path):
    study = build.study(build.sparse(0.9, 1.0, wheels=4))
    with pytest.raises(InputError, match=r"results/demo: trial 0: wheels: unknown key"):
        export_config(study, "knee", tmp_path / "best.yaml")
    assert not list(tmp_path.iterdir())


def test_only_what_meets_the_constraints_is_picked(build):
    study = build.study(build.control(0.95, 3.0), build.sparse(0.9, 2.0), build.sparse(0.94, 0.5))
    study.study["search"]["constraints"] = ["kwh <= 0.8 * baseline", "peak_rss_gb <= 1"]
    study.trials["feasible"] = pd.Series([False, True, False], dtype=object)
    assert {pick_trial(study, pick)["trial"] for pick in ("knee", "max-accuracy", "min-energy", "max-drop=10")} == {1}
    study.trials["feasible"] = pd.Series([False] * 3, dtype=object)
    with pytest.raises(InputError, match="no complete trial that meets all constraints"):
        pick_trial(study, "max-accuracy")
