import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from sbp_tune.errors import InputError
from sbp_tune.files import parse_yaml
from sbp_tune.study.constraints import Constraint
from sbp_tune.study.file import Study
from sbp_tune.study.results import load_study
from sbp_tune.study.searcher import OptunaSearcher, enqueue_fixed_points
from sbp_tune.study.storage import create_study, open_study

BASELINE = {"val_accuracy": 0.9, "kwh": 2.0}
LIMITS = '["kwh <= 0.8 * baseline", "val_accuracy >= baseline - 0.05"]'


@pytest.mark.parametrize(
    ("text", "row", "excess"),
    [
        ("kwh <= 0.8 * baseline", {"kwh": 1.6}, 0),
        ("kwh<=baseline*0.8", {"kwh": 2.0}, 0.25),
        ("kwh <= 0.5*baseline + 1", {"kwh": 1.0}, -0.5),
        ("val_accuracy >= baseline - 0.1", {"val_accuracy": 0.4}, 0.5),
        ("val_accuracy >= baseline", {"val_accuracy": 0.9}, 0),
        ("peak_gpu_gb <= 12", {"peak_gpu_gb": 15}, 0.25),
        ("val_loss <= 1e-1", {"val_loss": 0.05}, -0.5),
        ("loss >= 0", {"loss": 0.5}, -0.5),
        ("loss <= -.5", {"loss": 0.0}, 1.0),
    ],
)
def test_by_what_part_of_the_bound(text, row, excess):
    assert Constraint.parse(text).excess(row, BASELINE) == pytest.approx(excess)


@given(factor=st.floats(0.01, 100), offset=st.floats(-10, 10), value=st.floats(-50, 50), baseline=st.floats(-50, 50))
def test_what_is_at_most_the_bound_is_not_above_it(factor, offset, value, baseline):
    bound = f"{factor!r} * baseline {'-' if offset < 0 else '+'} {abs(offset)!r}"
    upper, lower = (Constraint.parse(f"kwh {relation} {bound}") for relation in ("<=", ">="))
    exact = value - (offset + factor * baseline)
    row, reference = {"kwh": value}, {"kwh": baseline}
    assert (upper.excess(row, reference) <= 0) == (exact <= 0)
    assert (lower.excess(row, reference) <= 0) == (exact >= 0)


@pytest.mark.parametrize("value", [None, math.nan, "much"])
def test_what_was_not_measured_is_no_number(value):
    with pytest.raises(ValueError, match=r"peak_gpu_gb of the trial is .+, and peak_gpu_gb <= 12 needs it"):
        Constraint.parse("peak_gpu_gb <= 12").excess({"peak_gpu_gb": value}, {})
    with pytest.raises(ValueError, match="kwh of the baseline is"):
        Constraint.parse("kwh <= baseline").excess({"kwh": 1.0}, {"kwh": value})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        *(
            (text, "needs COLUMN <= or >= a bound")
            for text in (
                "kwh < 3",
                "kwh",
                "3 <= kwh",
                "kwh <= 0.8baseline",
                "kwh <= 80 %",
                "kwh <= __import__('os')",
                "",
            )
        ),
        ("val_acuracy >= 0.9", "val_acuracy is no column that can be constrained; allowed: val_accuracy, f1"),
        ("val_acuracy >= 0.9", "(did you mean val_accuracy?)"),
        ("test_accuracy >= 0.9", "test_accuracy is no column that can be constrained"),
        ("kwh <= 1e999", "a finite number"),
    ],
)
def test_bad_constraints(text, problem):
    with pytest.raises(ValueError) as error:
        Constraint.parse(text)
    assert problem in str(error.value) and len(str(error.value).splitlines()) == 1


def test_bad_constraints_of_a_file_are_told_at_once(make_study):
    with pytest.raises(InputError) as error:
        make_study(("{trials: 6}", '{trials: 6, constraints: ["kwh < 3", "kwh <= 4", "kwhh <= 3"]}'))
    first, second = error.value.problems
    assert "search.constraints.0" in first and "'kwh < 3'" in first
    assert "search.constraints.2" in second and "did you mean kwh?" in second


@pytest.mark.parametrize(
    ("baselines", "found"),
    [("", "found no baseline"), ("baselines:\n  - {epochs: 8}\n  - {sparsity.estimator: dense}\n", "found mask")],
)
def test_the_baseline_is_a_dense_one(study_text, baselines, found):
    head = study_text[: study_text.index("baselines:")]

    def study(limit):
        return Study(parse_yaml(f"{head}{baselines}search: {{constraints: ['{limit}']}}", "s.yaml"), "s.yaml")

    with pytest.raises(InputError) as error:
        study("kwh <= baseline")
    assert str(error.value) == f"s.yaml: search.constraints: `baseline` is the first baseline, a dense one; {found}"
    assert len(study("kwh <= 3").constraints) == 1


@pytest.fixture
def start(tmp_path, make_study, study_text, storage_in_memory):
    """start(constraints) -> (study, directory, searcher)"""

    def begin(limits=LIMITS):
        study = make_study(("{trials: 6}", f"{{trials: 6, sampler: random, constraints: {limits}}}"))
        (tmp_path / "study.yaml").write_text(study_text.replace("{trials: 6}", f"{{constraints: {limits}}}"))
        with (tmp_path / "study.yaml").open("a") as file:
            file.write("\nobjectives: {val_accuracy: max, kwh: min}\n")
        (tmp_path / "study.db").touch()
        enqueue_fixed_points(create_study(tmp_path, study.file.name, study.objectives, {}), study)
        return study, tmp_path, OptunaSearcher(study, tmp_path)

    return begin


def done(accuracy, kwh, **more):
    return {"val_accuracy": accuracy, "kwh": kwh, "fully_trained": True, **more}


def states(path):
    return [trial.state.name for trial in open_study(path).get_trials() if trial.state != TrialState.WAITING]


def test_a_trial_that_ends_before_the_baseline_waits_for_it(start):
    _, path, searcher = start()
    for name in ("dense", "cheap", "poor"):
        searcher.suggest(name)
    searcher.on_trial_complete("cheap", done(0.88, 1.5))
    searcher.on_trial_complete("poor", done(0.5, 0.1))
    assert states(path) == ["RUNNING"] * 3
    table = load_study(path).trials
    assert table["state"].tolist() == ["interrupted", "complete", "complete"] and table["feasible"].isna().all()
    searcher.on_trial_complete("dense", done(0.9, 2.0))
    assert states(path) == ["COMPLETE"] * 3
    assert load_study(path).trials["feasible"].tolist() == [False, True, False]
    assert [trial.number for trial in open_study(path).best_trials] == [1]
    assert open_study(path).get_trials()[1].values == [0.88, 1.5]


def test_it_waits_through_a_crash_and_is_not_run_again(start):
    study, path, searcher = start()
    first = [searcher.suggest(name) for name in ("dense", "cheap")]
    searcher.on_trial_complete("cheap", done(0.88, 1.5))
    again = OptunaSearcher(study, path)
    assert again.suggest("dense-2")["lease"] == {**first[0]["lease"], "attempt": 1}
    assert again.suggest("third")["lease"]["trial"] == "2"
    again.on_trial_complete("third", done(0.87, 1.0))
    again.on_trial_complete("dense-2", done(0.9, 2.0))
    assert states(path) == ["COMPLETE"] * 3
    assert load_study(path).trials["feasible"].tolist() == [False, True, True]


@pytest.mark.parametrize("how", [done(math.nan, 2.0), {"val_accuracy": 0.1}])
def test_without_a_baseline_nothing_can_be_told_and_the_search_ends(start, how):
    _, path, searcher = start()
    for name in ("dense", "held", "runs"):
        searcher.suggest(name)
    searcher.on_trial_complete("held", done(0.88, 1.5))
    searcher.on_trial_complete("dense", how)
    assert searcher.suggest("more") is None  # one runs yet
    searcher.on_trial_complete("runs", done(0.88, 1.5))
    assert searcher.suggest("more") == searcher.FINISHED
    assert "trial 0, the baseline that search.constraints compare with, has no result" in searcher.ended_early
    assert states(path)[1:] == ["FAIL", "FAIL"]
    assert "the baseline that search.constraints compare with" in open_study(path).get_trials()[1].user_attrs["error"]


def test_absolute_constraints_wait_for_nobody(start):
    _, path, searcher = start('["peak_rss_gb <= 2"]')
    for name, memory in {"a": 1.0, "b": 3.0, "c": None}.items():
        searcher.suggest(name)
        searcher.on_trial_complete(name, done(0.9, 1.0, peak_rss_gb=memory))
    assert states(path) == ["COMPLETE", "COMPLETE", "FAIL"]
    table = load_study(path).trials
    assert table["feasible"].tolist() == [True, False, None]
    assert table["error"][2] == "search.constraints: peak_rss_gb of the trial is None, and peak_rss_gb <= 2 needs it"


def test_without_constraints_no_trial_is_feasible_or_not(start):
    _, path, searcher = start("[]")
    searcher.suggest("a")
    searcher.on_trial_complete("a", done(0.9, 1.0))
    assert load_study(path).trials["feasible"].tolist() == [None] and len(open_study(path).best_trials) == 1
