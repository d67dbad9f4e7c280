import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from analysis.pareto import trial_front
from analysis.picks import RULES, by_id, pick_trial
from sbp_tune.cli import app
from sbp_tune.errors import InputError

NAN = math.nan
RULES_WITHOUT_ID = ["knee", "max-accuracy", "min-energy", "max-drop=1", "budget=5", "weights=1,1"]


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
        ("budget=2", 2),
        ("budget=3.9", 2),
        ("budget=4", 1),
        ("budget=9.99", 1),
        ("budget=10", 0),
        ("budget=100", 0),  # 3 is as accurate and dearer, 7's kWh nobody knows
        ("weights=1,0", 0),
        ("weights=0,1", 2),
        ("weights=0.5,0.5", 1),
        ("weights=70,30", 1),
        ("weights=0.99,0.01", 0),
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


def test_weights_pick_a_point_in_a_dent_of_the_front(build):
    """Losses (0, 1), (0.6, 0.6), (1, 0): no weighted sum ever picks the one in the middle, which is worth having."""
    study = build.study(build.sparse(1.0, 2.0), build.sparse(0.4, 1.6), build.sparse(0.0, 1.0))
    assert [pick_trial(study, f"weights={pair}")["trial"] for pair in ("9,1", "1,1", "1,9")] == [0, 1, 2]


def test_weights_of_three_objectives(build):
    objectives = {"val_accuracy": "max", "kwh": "min", "train_time_s": "min"}
    rows = [(0.9, 3.0, 30.0), (0.8, 1.0, 20.0), (0.7, 2.0, 10.0)]
    trials = [build.sparse(accuracy, kwh, train_time_s=time) for accuracy, kwh, time in rows]
    study = build.study(*trials, objectives=objectives)
    assert [pick_trial(study, f"weights={triple}")["trial"] for triple in ("1,0,0", "0,1,0", "0,0,1")] == [0, 1, 2]
    with pytest.raises(InputError, match=r"needs 3 numbers .* val_accuracy, kwh, train_time_s .* weights=0.7,0.3,0.1"):
        pick_trial(study, "weights=1,1")


values = st.floats(0, 1, width=16)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])  # which holds no state
@given(
    points=st.lists(st.tuples(values, values), min_size=1, max_size=8), weights=st.tuples(values, values).filter(any)
)
def test_weights_pick_a_point_of_the_front_that_no_other_is_nearer_than(build, points, weights):
    study = build.study(*(build.sparse(accuracy, kwh) for accuracy, kwh in points))
    front = trial_front(study)
    picked = pick_trial(study, f"weights={weights[0]},{weights[1]}")
    assert picked["trial"] in set(front["trial"])
    gains = front[["val_accuracy", "kwh"]].to_numpy() * [1, -1]
    losses = (gains.max(axis=0) - gains) / np.where(np.ptp(gains, axis=0) > 0, np.ptp(gains, axis=0), 1)
    worst = (np.array(weights) / max(weights) * losses).max(axis=1)
    assert worst[front["trial"].tolist().index(picked["trial"])] <= worst.min() + 2e-3 + 1e-9


@pytest.mark.parametrize(
    ("pick", "message"),
    [
        ("best", "found 'best'; possible: knee, max-accuracy, min-energy, max-drop=1.0, budget=0.3, weights=0.7,0.3"),
        ("knee=2", "possible: knee"),
        ("max-drop", "max-drop=1.0"),
        ("trial", "trial=ID"),
        ("", "possible"),
        ("max-drop=one", "percentage points from 0 to 100"),
        ("max-drop=-1", "percentage points from 0 to 100"),
        ("max-drop=nan", "percentage points from 0 to 100"),
        ("budget=much", "budget: found 'much'; needs kWh above 0"),
        ("budget=0", "needs kWh above 0"),
        ("budget=inf", "needs kWh above 0"),
        ("budget=1.9", r"budget=1.9: no complete trial used so few kWh; possible: budget=2 \(trial 2\) and more"),
        ("weights=1", "weights: found '1'; needs 2 numbers from 0, not all 0, for val_accuracy, kwh"),
        ("weights=1,2,3", "needs 2 numbers"),
        ("weights=0,0", "not all 0"),
        ("weights=-1,2", "needs 2 numbers from 0"),
        ("weights=nan,1", "needs 2 numbers"),
        ("weights=inf,1", "needs 2 numbers"),
        ("weights=a,b", "as weights=0.7,0.3"),
        ("trial=99", "no such trial; complete trials: 0, 1, 2, 3, 4, 7"),
        ("trial=5", "this trial is stopped"),
        ("trial=t6", "this trial is failed"),
    ],
)
def test_impossible_picks_say_what_is_possible(study, pick, message):
    with pytest.raises(InputError, match=message) as raised:
        pick_trial(study, pick)
    assert len(str(raised.value).splitlines()) == 1


def test_a_ray_id_may_be_cut_short_where_only_one_begins_so(study):
    study.trials["trial_id"] = ["aaaa0001", "aaaa0002", "bbbb0003", "12345678", "4444aaaa", "s", "f", "7"]
    assert by_id(study, "bbbb")["trial"] == 2
    assert by_id(study, "aaaa0002")["trial"] == 1
    assert by_id(study, "12345")["trial"] == 3
    assert by_id(study, "4")["trial"] == 4 and by_id(study, "7")["trial"] == 7  # a number is a number
    with pytest.raises(InputError, match=r"several trials begin so: 0 \(aaaa0001\), 1 \(aaaa0002\)$"):
        by_id(study, "aaaa")
    with pytest.raises(InputError, match="no such trial"):
        by_id(study, "bbb")  # too short to be meant


@pytest.mark.parametrize("kwh", [1.2345e-6, 1.23e-6, 0.1 + 0.2, 7.0, 1234.5])
def test_the_budget_that_is_said_to_be_possible_is(build, kwh):
    study = build.study(build.sparse(0.9, kwh))
    with pytest.raises(InputError) as raised:
        pick_trial(study, "budget=1e-12")
    said = re.search(r"possible: (budget=\S+)", str(raised.value))
    assert said is not None and pick_trial(study, said[1])["trial"] == 0


def test_the_drop_that_is_said_to_be_possible_is(build):
    study = build.study(build.control(0.9, NAN), build.sparse(0.8765, 1.0))
    with pytest.raises(InputError, match=r"so near to the best dense control \(90.00 %\)") as raised:
        pick_trial(study, "max-drop=1")
    said = re.search(r"possible: (max-drop=\S+)", str(raised.value))
    assert said is not None and pick_trial(study, said[1])["trial"] == 1


@pytest.mark.parametrize("pick", RULES_WITHOUT_ID)
def test_a_study_without_a_complete_trial_says_what_it_has(build, pick):
    with pytest.raises(InputError, match=r"no complete trial to pick \(1 failed\)"):
        pick_trial(build.study(build.trial(state="failed")), pick)
    with pytest.raises(InputError, match="no trial at all"):
        pick_trial(build.study(), pick)


@pytest.mark.parametrize("pick", RULES_WITHOUT_ID)
def test_trials_without_values_are_never_picked(build, pick):
    with pytest.raises(InputError, match=pick.partition("=")[0]):
        pick_trial(build.study(build.trial()), pick)


def test_only_what_meets_the_constraints_is_picked(build):
    study = build.study(build.control(0.95, 3.0), build.sparse(0.9, 2.0), build.sparse(0.94, 0.5))
    study.study["search"]["constraints"] = ["kwh <= 0.8 * baseline", "peak_rss_gb <= 1"]
    study.trials["feasible"] = pd.Series([False, True, False], dtype=object)
    picks = ("knee", "max-accuracy", "min-energy", "max-drop=10", "budget=9", "weights=0,1")
    assert {pick_trial(study, pick)["trial"] for pick in picks} == {1}
    study.trials["feasible"] = pd.Series([False] * 3, dtype=object)
    for pick in picks:
        with pytest.raises(InputError, match=r"no complete trial that meets all constraints|no trial on the front"):
            pick_trial(study, pick)


def test_help_names_every_rule():
    helped = " ".join(CliRunner().invoke(app, ["export", "--help"], env={"COLUMNS": "200"}).output.split())
    for name, rule in RULES.items():
        assert rule.usage.startswith(name)
        assert f"{rule.usage}: {rule.help}" in helped
