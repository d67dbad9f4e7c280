"""The simulated searches of benchmarks/early_stopping, by hand and by invariants."""

import itertools
import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.early_stopping.comparison import SCHEDULERS, compare, scheduler_of
from benchmarks.early_stopping.problems import KWH_PER_TFLOP, Curve, Problem, Shuffled, analytic, recorded
from benchmarks.early_stopping.record import main as record
from benchmarks.early_stopping.simulation import simulate
from sbp_tune.replay_table import ReplayTable
from sbp_tune.study.file import load_study_file
from sbp_tune.study.rungs import Ladder
from sbp_tune.study.scheduler import MOASHA
from search_spaces import shipped_spaces

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def curve(*accuracies, kwh=1.0, seconds=1.0):
    """A trial of so many epochs, each of the same energy and time."""
    rows = [
        {"epoch": epoch, "val_accuracy": accuracy, "kwh": kwh * epoch, "epoch_time_s": seconds}
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]
    config = {"epochs": len(rows), "lr_schedule": {"name": "constant"}, "sparsity": {}}
    return Curve(config, rows, accuracies[-1], kwh * len(rows))


class Listed:
    """Proposals in a given order, and how they ended."""

    def __init__(self, *curves):
        self.rest, self.told = list(curves), {}

    def ask(self):
        return self.rest.pop(0) if self.rest else None

    def tell(self, number, curve, is_complete):
        self.told[number] = is_complete


def strict():
    return MOASHA({"val_accuracy": "max", "kwh": "min"}, lambda trial_id: None, Ladder(1, 2))


def test_two_workers_worked_out_by_hand():
    """Seconds: trial 0 of 3 s ends at 6 and trial 1 at 2, so the second worker takes trial 2 from 2 to 4, then 3."""
    proposals = Listed(curve(0.1, 0.2, seconds=3.0), curve(0.3, 0.4), curve(0.5, 0.6), curve(0.7, 0.8))
    search = simulate(proposals, None, kwh=100.0, workers=2)
    assert [(spent, trained.accuracy) for spent, trained in search.trained] == [
        (2.0, 0.4),
        (5.0, 0.6),  # the first epoch of trial 0 ended before it
        (7.0, 0.2),  # at 6 s, as trial 3 does: of two at one time the lower worker is first
        (8.0, 0.8),
    ]
    assert (search.started, search.stopped, search.spent) == (4, 0, 8.0)
    assert proposals.told == dict.fromkeys(range(4), True)
    assert [trained.accuracy for trained in search.trained_within(5.0)] == [0.4, 0.6]


def test_what_is_stopped_has_cost_its_energy_and_is_not_trained():
    proposals = Listed(curve(0.5, 0.6, 0.7), curve(0.4, 0.9, 0.9, kwh=1.5), curve(0.6, 0.7, 0.8))
    search = simulate(proposals, strict(), kwh=100.0, workers=1)
    assert [(spent, trained.accuracy) for spent, trained in search.trained] == [(3.0, 0.7), (7.5, 0.8)]
    assert (search.started, search.stopped) == (3, 1) and proposals.told == {0: True, 1: False, 2: True}


def test_what_is_unfinished_when_the_energy_is_used_is_not_trained():
    search = simulate(Listed(curve(0.5, 0.6), curve(0.7, 0.8)), None, kwh=3.5, workers=1)
    assert [trained.accuracy for _, trained in search.trained] == [0.6] and search.started == 2


curves = st.builds(
    lambda accuracies, kwh, seconds: curve(*accuracies, kwh=kwh, seconds=seconds),
    st.lists(st.integers(0, 9).map(lambda tenth: tenth / 10), min_size=1, max_size=6),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([0.5, 1.0, 3.0]),
)


@given(st.lists(curves, max_size=12), st.floats(0, 60), st.integers(1, 4), st.booleans())
def test_energy_is_neither_lost_nor_doubled(trials, kwh, workers, is_scheduled):
    proposals = Listed(*trials)
    search = simulate(proposals, strict() if is_scheduled else None, kwh, workers)
    assert len(search.trained) + search.stopped == len(proposals.told)
    assert [spent for spent, _ in search.trained] == sorted(spent for spent, _ in search.trained)
    total = sum(trial.kwh for trial in trials)
    if not is_scheduled:
        assert search.stopped == 0
        assert search.spent == pytest.approx(total) if total <= kwh else search.spent > kwh
    assert search.spent <= total + 1e-9
    if search.spent <= kwh:
        assert len(proposals.told) == len(trials)


@pytest.fixture(scope="module")
def problem():
    """Ten trials of which the last are the best, two dense controls; sampler `random` in the order of the list."""
    trials = [
        curve(*(0.01 * number * epoch for epoch in range(1, 9)), kwh=2.0 - 0.1 * number) for number in range(1, 11)
    ]
    controls = [curve(*[0.3] * 8, kwh=1.5), curve(0.2, 0.4, kwh=1.5)]
    return Problem("tiny", controls, trials, {"random": lambda seed: Shuffled(trials, seed)})


def test_reference_points_by_hand(problem):
    # Controls: accuracy 0.3 and 0.4 for 12 and 3 kWh. The front of the trials is the last alone: 0.8 for 8 kWh.
    assert problem.full_run_kwh == 12.0
    assert problem.references == {"controls": (0.3, 12.0), "front": (pytest.approx(0.8), pytest.approx(8.0))}
    assert problem.best["controls"] == pytest.approx((0.8 - 0.3) * (12 - 8))
    assert problem.hypervolume([], "controls") == 0
    assert problem.hypervolume([curve(*[0.4] * 8, kwh=1.0), curve(0.2)], "controls") == pytest.approx(0.1 * 4)


def test_rows_of_a_comparison():
    trials = [curve(*[0.1 * number] * 8, kwh=1.0 + 0.1 * number) for number in range(1, 10)]
    problem = Problem("tiny", [trials[0], trials[-1]], trials, {"random": lambda seed: Shuffled(trials, seed)})
    rows = compare(problem, "random", range(3), [3.0, 4.0])
    assert [(row["reference"], row["budget"], row["scheduler"]) for row in rows] == list(
        itertools.product(("controls", "front"), (3.0, 4.0), SCHEDULERS)
    )
    for row in rows:
        assert len(row["by_seed"]) == 3 and 0 <= row["hypervolume"] <= 1
        assert 0 < row["used"] <= row["budget"]
        assert (row["gain"] is None) == (row["scheduler"] == "none")
        if row["scheduler"] in ("moasha", "moasha from 1/9"):  # all are non-dominated: nothing is stopped or gained
            assert row["gain"] == row["gain_low"] == row["gain_high"] == 0 and row["trained"] > 0
    assert compare(problem, "random", range(3), [3.0, 4.0]) == rows
    fewer = compare(problem, "random", range(1, 3), [3.0], ["none", "asha"])
    same = [row for row in rows if row["budget"] == 3.0 and row["scheduler"] in ("none", "asha")]
    assert [row["by_seed"] for row in fewer] == [row["by_seed"][1:] for row in same]
    assert {(row["seeds"], row["first_seed"]) for row in fewer} == {(2, 1)}


def test_the_schedulers_are_those_of_a_study_file():
    assert scheduler_of("none", 8) is None
    for name, width in {"asha": 1, "moasha": 2}.items():
        scheduler = scheduler_of(name, 8)
        assert isinstance(scheduler, MOASHA)
        simulate(Listed(curve(0.5, 0.6)), scheduler, 9.0)
        ((_, epoch, _, rows),) = scheduler.state()["rungs"]
        assert epoch == 1 and len(rows[0]) == 1 + width
    late = scheduler_of("moasha from 1/9", 27)
    simulate(Listed(curve(*[0.5] * 27)), late, 99.0)
    assert [epoch for _, epoch, *_ in late.state()["rungs"]] == [3, 7, 13]


def test_the_same_proposals_for_all():
    problem = analytic(load_study_file(shipped_spaces()["resnet18_cifar10"]), many=20)
    first, again, other = (
        [proposals.ask().config for _ in range(3)] for proposals in map(problem.samplers["random"], (0, 0, 1))
    )
    assert first == again != other
    assert problem.references["controls"] == (pytest.approx(0.876, abs=1e-3), pytest.approx(0.1))


def test_a_sampler_that_learns_is_told_of_trained_trials_only():
    proposals = analytic(load_study_file(shipped_spaces()["resnet18_cifar10"]), many=20).samplers["tpe"](0)
    trials = [proposals.ask(), proposals.ask()]
    proposals.tell(0, trials[0], True)
    proposals.tell(1, trials[1], False)
    states = [(trial.state.name, trial.values) for trial in proposals._optuna.get_trials()]
    assert states == [("COMPLETE", [trials[0].rows[-1][name] for name in ("val_accuracy", "kwh")]), ("PRUNED", None)]


def test_a_recorded_problem(tmp_path):
    """Trial 0 is a dense control, trial 2 diverged after its first epoch: a proposal like others, but no result."""
    trials = [("baseline", [0.2, 0.4], 2), ("search", [0.3, 0.5], 2), ("search", [0.9], 2), ("search", [0.1], 1)]
    rows = [
        {
            **{"kind": kind, "trial": trial, "epoch": epoch, "val_accuracy": accuracy, "tflop": epoch * (1 + trial)},
            "config_json": json.dumps({"epochs": planned, "lr_schedule": {"name": "cosine"}, "sparsity": {}}),
        }
        for trial, (kind, accuracies, planned) in enumerate(trials)
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]
    pd.DataFrame(rows[::-1]).to_parquet(tmp_path / "table.parquet")
    problem = recorded(tmp_path / "table.parquet")
    assert problem.full_run_kwh == pytest.approx(2 * KWH_PER_TFLOP)
    proposals = problem.samplers["random"](0)
    assert sorted(len(proposals.ask().rows) for _ in range(3)) == [1, 1, 2] and proposals.ask() is None
    search = simulate(problem.samplers["random"](0), scheduler_of("moasha", 2), 1.0)
    assert {(curve.accuracy, round(curve.kwh / KWH_PER_TFLOP)) for _, curve in search.trained} == {(0.5, 4), (0.1, 4)}
    assert search.spent == pytest.approx((4 + 3 + 4) * KWH_PER_TFLOP) and search.stopped == 0
    assert problem.references["front"] == (pytest.approx(0.5), pytest.approx(4 * KWH_PER_TFLOP))


@pytest.mark.parametrize("name", ["small", "medium", "wide"])
def test_the_committed_results_are_those_of_the_committed_tables(name):
    table = BENCHMARKS / "data" / f"{name}.parquet"
    frame = pd.read_parquet(table)
    study = load_study_file(BENCHMARKS / "early_stopping" / f"{name}.yaml")
    trials = frame.drop_duplicates("trial")
    assert trials["kind"].value_counts().to_dict() == {"baseline": 3, "search": study.file.search.trials}
    assert all(json.loads(config)["data"]["root"] == "cifar10-images" for config in trials["config_json"])
    assert len(ReplayTable(table)) == len(trials)
    problem = recorded(table)
    found = json.loads((BENCHMARKS / "results" / "early_stopping.json").read_text())["problems"][name]
    assert found["best"] == pytest.approx(problem.best)
    assert found["references"] == {name: pytest.approx(list(at)) for name, at in problem.references.items()}


@pytest.mark.slow
def test_recorded_anew_what_is_there_is_kept(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    arguments = ["--data", "unused", "--study", str(tmp_path / "tiny.yaml"), "-o", str(tmp_path / "tiny.parquet")]
    record([*arguments, "--trials", "1"])
    before = pd.read_parquet(tmp_path / "tiny.parquet")
    assert before["trial"].drop_duplicates().tolist() == [0, 1] and before["kind"].iloc[0] == "baseline"
    record(arguments)
    after = pd.read_parquet(tmp_path / "tiny.parquet")
    pd.testing.assert_frame_equal(after[after["trial"] < 2], before)
    assert after["trial"].nunique() == 3 and len(ReplayTable(tmp_path / "tiny.parquet")) == 3
    assert (after.groupby("trial")["epoch"].max() == after.groupby("trial")["epoch"].count()).all()


TINY = """
name: tiny
config:
  data: {name: digits, root: anywhere, subset: 64, batch_size: 32}
  model: {args: {width: 4}}
  epochs: {choice: [1, 2]}
  optimizer: {lr: {log_uniform: [0.01, 1.0]}}
baselines: [{epochs: 2}]
search: {sampler: random, trials: 2}
resources: {cpu: 1, gpu: 0}
"""
