import itertools
import json
import math
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler
from typer.testing import CliRunner

from sbp_tune.cli import app
from sbp_tune.study.epochs import append_row
from sbp_tune.study.file import load_study_file
from sbp_tune.study.launch import _settle_ended
from sbp_tune.study.ledger import study_bill
from sbp_tune.study.results import load_study
from sbp_tune.study.rungs import Ladder
from sbp_tune.study.scheduler import MOASHA, Contestant
from sbp_tune.study.schedulers import make_scheduler
from sbp_tune.study.searcher import OptunaSearcher, enqueue_fixed_points
from sbp_tune.study.storage import create_study, open_study

TWO = {"val_accuracy": "max", "kwh": "min"}
PLAN = 16


class Play:
    """A scheduler, and trials that report to it until it stops them; trial id: "number" or "number-attempt"."""

    def __init__(self, objectives=TWO, plans=None, exempt=(), horizons=None, ladder=(1, 2), rank="epsnet", tie=0.0):
        plans, horizons = plans or {}, horizons or {}

        def contestant_of(trial_id):
            number = int(trial_id.split("-")[0])
            return Contestant(number, plans.get(number, PLAN), horizons.get(number, math.inf), number in exempt)

        self.objectives, self.log = objectives, []
        self.make = lambda: MOASHA(objectives, contestant_of, Ladder(*ladder), rank, tie)
        self.scheduler = self.make()

    def report(self, trial, epoch, *values, **more):
        """Whether a trial goes on."""
        row = {"trial_id": str(trial), "epoch": epoch, **dict(zip(self.objectives, values, strict=False)), **more}
        decision = self.scheduler.on_trial_result(None, SimpleNamespace(trial_id=str(trial)), row)
        self.log.append(row)  # as the recorder does, after the decision
        return decision == TrialScheduler.CONTINUE

    def rebuilt(self):
        scheduler = self.make()
        scheduler.replay(self.log)
        return scheduler.state()


def test_an_energy_that_is_hardly_less_keeps_no_trial_that_is_worse():
    rows = [(0.5, 2.09), (0.4, 2.05)]  # less energy by 2 %, within one step of 10 %
    for tie, goes_on in ((0.0, True), (0.1, False)):
        play = Play(tie=tie)
        assert [play.report(trial, 1, *row) for trial, row in enumerate(rows)] == [True, goes_on]
        assert play.rebuilt() == play.scheduler.state()


def test_rungs_worked_out_by_hand():
    play = Play(ladder=(2, 2))  # rungs at 2, 4, 8; half, rounded up, goes on
    assert play.report(0, 1, 0.1, 9.0)  # no rung
    assert play.report(0, 2, 0.5, 2.0)  # alone
    assert not play.report(1, 2, 0.4, 3.0)  # dominated by the only other: 1 of 2 goes on
    assert play.report(2, 2, 0.3, 1.0)  # the worst, and the cheapest
    assert play.report(3, 2, 0.5, 2.0)  # equal to the best is not dominated
    assert not play.report(4, 2, 0.45, 2.5)  # 0, 2 and 3 are non-dominated, so ahead; 3 of 5 go on
    assert not play.report(5, 2, 0.44, 2.6)  # 3 of 6
    assert play.report(6, 2, 0.46, 2.4)  # first of the others; 4 of 7 go on
    for number in (0, 2):
        assert play.report(number, 3, 0.0, 99.0)  # between rungs nobody looks
    assert play.report(0, 4, 0.6, 4.0)
    assert not play.report(2, 4, 0.5, 4.1)  # its 1.0 at epoch 2 is nothing here: energy at equal epochs
    assert play.scheduler.stopped == {1: 2, 4: 2, 5: 2, 2: 4}
    assert [key[:3] for key in play.scheduler.state()["rungs"]] == [[0, 2, list(range(7))], [0, 4, [0, 2]]]


def test_a_rung_at_or_beyond_a_trials_own_end_is_not_its_own():
    play = Play(plans={1: 4, 2: 5})
    for number in (0, 1, 2):
        assert play.report(number, 2, 0.5, 1.0)
    assert play.report(0, 4, 0.9, 1.0)
    assert play.report(1, 4, 0.1, 9.0)  # trained to its end
    assert not play.report(2, 4, 0.1, 9.0)
    assert play.report(3, 8, 0.1, 9.0, fully_trained=True)  # by its own early stopping
    assert [key[:3] for key in play.scheduler.state()["rungs"]] == [[0, 2, [0, 1, 2]], [0, 4, [0, 2]]]


def test_trials_that_report_now_and_then_are_compared_at_the_epochs_that_they_report():
    play = Play(ladder=(1, 3))  # rungs at 1, 3, 9
    assert play.report(0, 5, 0.5, 1.0)  # beyond 1 and 3: one entry, at epoch 5
    assert not play.report(1, 5, 0.4, 1.1)
    assert play.report(2, 4, 0.3, 1.1)  # nobody else was seen at epoch 4
    assert play.report(2, 5, 0.2, 9.9)  # and its rung 3 is over
    assert play.report(0, 10, 0.6, 2.0) and not play.report(2, 10, 0.5, 2.1)
    assert [key[:3] for key in play.scheduler.state()["rungs"]] == [[0, 5, [0, 1]], [0, 4, [2]], [0, 10, [0, 2]]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "0.5"])
def test_a_trial_without_a_number_is_stopped_and_is_nobodys_rival(value):
    play = Play(exempt=(3,))
    assert not play.report(0, 1, value, 1.0)
    assert not play.report(1, 3, 0.5, value)  # between rungs too
    assert not play.report(1, 4, 0.5, 1.0)  # once stopped, stopped
    assert play.report(3, 1, value, 1.0)  # exempt: its end says what is wrong
    assert play.scheduler.state()["rungs"] == []
    assert play.report(2, 1, 0.1, 99.0)


def test_a_missing_objective_is_no_number():
    assert not Play().report(0, 1, 0.5)


def test_exempt_trials_run_to_their_end_and_are_rivals():
    play = Play(exempt=(0, 1))
    assert play.report(2, 1, 0.9, 1.0)
    for epoch in (1, 2, 4, 8, 15):
        assert play.report(0, epoch, 0.1, 9.0)  # behind, and goes on
    assert play.report(1, 1, 0.95, 0.9)
    assert not play.report(3, 1, 0.09, 9.1)  # behind all three
    assert not play.report(2, 2, 0.09, 9.1)  # of epoch 2 only the exempt one has told


def test_exempt_trials_are_rivals_in_every_bracket():
    play = Play(exempt=(0,), ladder=(1, 2, 3))
    for epoch in range(1, 9):
        assert play.report(0, epoch, 0.9, 1.0)
    first = {}
    for number, epoch in itertools.product(range(1, 40), range(1, 9)):
        if number not in first and not play.report(number, epoch, 0.8, 1.1 + number):
            first[number] = epoch
    assert all(first[number] == 2 ** Ladder(1, 2, 3).bracket_of(number) for number in first)
    assert set(first.values()) == {1, 2, 4}


@given(st.integers(1, 30), st.floats(1.1, 5), st.integers(1, 4))
def test_ladders(grace, factor, brackets):
    ladder = Ladder(grace, factor, brackets)
    for bracket in range(brackets):
        rungs = ladder.below(bracket, 1000)
        assert rungs == sorted(rungs) and min(rungs, default=grace) >= grace
        assert all(
            rung < 1000 and math.isclose(rung, grace * factor ** (bracket + k), abs_tol=1)
            for k, rung in enumerate(rungs)
        )
    numbers = [ladder.bracket_of(number) for number in range(2000)]
    shares = [factor**-bracket for bracket in range(brackets)]
    for bracket, share in enumerate(shares):
        assert numbers.count(bracket) / 2000 == pytest.approx(share / sum(shares), abs=0.01)


def test_whole_rungs_are_whole():
    assert Ladder(1, 3).below(0, 100) == [1, 3, 9, 27, 81]
    assert Ladder(5, 2.0).below(1, 100) == [10, 20, 40, 80]
    assert Ladder(10, 1.1).below(0, 15) == [10, 11, 13, 14]  # 10, 11, 12.1, 13.31, 14.641


def test_a_long_plan_is_not_behind_for_being_long():
    """The 4-epoch trial's learning rate is nearly down at epoch 2; the 16-epoch ones' is not."""
    horizons = {0: 4, 1: 16, 2: 16, 3: 4, 4: math.inf}
    play = Play(plans={0: 4, 3: 4}, horizons=horizons)
    assert play.report(0, 2, 0.9, 1.0)
    assert play.report(1, 2, 0.5, 1.1)  # behind the short one only, which is no rival
    assert not play.report(2, 2, 0.4, 1.2)  # behind one of its own kind
    assert not play.report(3, 2, 0.3, 1.3)  # behind its own kind, and longer ones even
    assert play.report(4, 2, 0.2, 1.4)  # never anneals: nobody is like it


results = st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 9))


@given(st.lists(results, max_size=60), st.sampled_from(["epsnet", "crowding"]))
def test_directions_flipped_give_mirrored_decisions(reports, rank):
    epochs = dict.fromkeys(range(6), 0)
    plain = Play({"val_accuracy": "max", "kwh": "min"}, rank=rank)
    flipped = Play({"val_accuracy": "min", "kwh": "max"}, rank=rank)
    for number, accuracy, kwh in reports:
        epochs[number] += 1
        assert plain.report(number, epochs[number], accuracy, kwh) == flipped.report(
            number, epochs[number], -accuracy, -kwh
        )
    assert plain.scheduler.state() == flipped.scheduler.state()


def test_a_trial_is_compared_again_at_its_rung_when_others_have_come_there():
    play = Play(ladder=(2, 3))  # rungs at 2 and 6; a third, rounded up, goes on
    assert play.report(0, 2, 0.4, 2.0)  # alone
    assert play.report(0, 3, 0.1, 9.0)  # alone there still, whatever it reports now
    assert play.report(1, 2, 0.5, 1.9)
    assert not play.report(0, 4, 0.9, 2.1)  # behind 1 at epoch 2
    assert play.report(1, 6, 0.6, 6.0)
    assert play.report(2, 2, 0.6, 1.8)  # ahead of 1 at epoch 2, but 1 has left that rung behind
    assert play.report(1, 7, 0.6, 7.0)
    assert play.scheduler.stopped == {0: 4}


def test_exempt_trials_are_not_compared_again_either():
    play = Play(exempt=(0,))
    assert play.report(0, 2, 0.1, 9.0) and play.report(1, 2, 0.5, 1.0) and play.report(0, 3, 0.1, 9.0)


@given(st.lists(results, max_size=60), st.sampled_from(["epsnet", "crowding"]))
def test_at_every_report_the_non_dominated_go_on_and_those_behind_the_kept_share_are_stopped(reports, rank):
    play, epochs, rungs = Play(rank=rank), dict.fromkeys(range(6), 0), {}
    for number, accuracy, kwh in reports:
        if number in play.scheduler.stopped or epochs[number] == PLAN - 1:
            continue
        epochs[number] += 1
        if epochs[number] in (1, 2, 4, 8):
            rungs.setdefault(epochs[number], {})[number] = (-accuracy, kwh)
        goes_on = play.report(number, epochs[number], accuracy, kwh)
        rung = rungs[2 ** (epochs[number].bit_length() - 1)]
        own = rung[number]
        dominating = sum(a <= own[0] and b <= own[1] and (a, b) != own for a, b in rung.values())
        assert goes_on or dominating > 0
        assert not goes_on or dominating <= len(rung) / 2


@given(st.permutations([*range(4)] * 3))
def test_the_last_to_come_is_judged_alike_in_whatever_order_the_others_came(order):
    play = Play(exempt=range(4))
    for index, number in enumerate(order):
        epoch = 1 + order[:index].count(number)
        play.report(number, epoch, 0.1 * number, number + epoch)
    # Of epoch 2: (0, 2), (0.1, 3), (0.2, 4), (0.3, 5), all non-dominated.
    assert play.report(10, 2, 0.15, 3.5)
    assert not play.report(11, 2, 0.14, 3.6)  # 5 are non-dominated; 3 of 6 go on
    rungs = {
        tuple(key): sorted(zip(numbers, rows, strict=True)) for *key, numbers, rows in play.scheduler.state()["rungs"]
    }
    assert rungs[0, 2][:4] == [(n, [math.inf, -0.1 * n, n + 2]) for n in range(4)]


@st.composite
def histories(draw):
    """Reports of trials in turn, with crashes after which a trial goes on from some earlier epoch as a new attempt."""
    at, attempt = dict.fromkeys(range(6), 0), dict.fromkeys(range(6), 0)
    steps = []
    for number in draw(st.lists(st.integers(0, 5), max_size=80)):
        if draw(st.integers(0, 9)) == 0:
            at[number], attempt[number] = draw(st.integers(0, at[number])), attempt[number] + 1
        at[number] += 1
        values = draw(st.tuples(st.integers(0, 9), st.sampled_from([1, 2, 3, 4, 5, math.nan])))
        steps.append((number, f"{number}-{attempt[number]}", at[number], values))
    return steps


@given(histories(), st.integers(1, 3), st.sets(st.integers(0, 5), max_size=2))
def test_rebuilt_from_the_log_it_is_what_it_was(history, brackets, exempt):
    play = Play(ladder=(1, 2, brackets), exempt=exempt)
    stopped = set()
    for number, trial_id, epoch, values in history:
        if number not in stopped and epoch <= PLAN and not play.report(trial_id, epoch, *values):
            stopped.add(number)
    assert play.rebuilt() == play.scheduler.state()
    assert set(play.scheduler.stopped) == stopped
    again = play.make()
    again.replay(play.log)
    play.scheduler = again  # and it decides as the one that had lived on
    assert not any(play.report(f"{number}-9", PLAN - 1, 9, 1) for number in stopped)


def test_an_epoch_reported_again_is_counted_once():
    play = Play()
    assert play.report("0", 1, 0.5, 1.0) and play.report("0", 2, 0.6, 2.0)
    assert play.report("1", 1, 0.6, 0.9)
    assert play.report("0-1", 1, 0.1, 9.0) and play.report("0-1", 2, 0.1, 9.0)  # the first telling was decided on
    assert not play.report("2", 1, 0.1, 9.0)
    assert [key[2] for key in play.scheduler.state()["rungs"]] == [[0, 1, 2], [0]]


def test_a_trial_that_went_on_after_all_is_not_stopped_by_the_log():
    play = Play()
    assert play.report(0, 1, 0.5, 1.0) and not play.report(1, 1, 0.4, 1.1)
    play.log.append({"trial_id": "1-1", "epoch": 2, "val_accuracy": 0.9, "kwh": 2.0})
    scheduler = play.make()
    scheduler.replay(play.log)
    assert scheduler.stopped == {}


@given(histories())
def test_saved_and_restored(tmp_path_factory, history):
    play = Play()
    for _, trial_id, epoch, values in history:
        play.report(trial_id, epoch, *values)
    file = tmp_path_factory.mktemp("state") / "scheduler"
    play.scheduler.save(str(file))
    again = play.make()
    again.restore(str(file))
    assert again.state() == play.scheduler.state()
    assert again.debug_string() == play.scheduler.debug_string()


def test_what_ray_asks_beside():
    scheduler = Play().scheduler
    assert scheduler.metric is None and not scheduler.supports_buffered_results
    assert scheduler.set_search_properties(None, None)
    assert not scheduler.set_search_properties("loss", "min")
    assert "no trials" not in scheduler.debug_string() and "none" in scheduler.debug_string()


def test_a_trial_that_is_nobodys_goes_on():
    scheduler = MOASHA(TWO, lambda trial_id: None, Ladder(1, 2))
    scheduler.replay([{"trial_id": "a", "epoch": 1}])
    assert scheduler.on_trial_result(None, SimpleNamespace(trial_id="a"), {"epoch": 1}) == TrialScheduler.CONTINUE


@pytest.fixture
def start(tmp_path, make_study):
    """A study directory with a searcher, as `search` starts one: two baselines, of 8 and 2 epochs, come first."""

    def begin(settings, *replacements):
        study = make_study(("{trials: 6}", f"{{trials: 6, {settings}}}"), *replacements)
        enqueue_fixed_points(create_study(tmp_path, study.file.name, study.objectives, {}), study)
        return study, tmp_path, OptunaSearcher(study, tmp_path)

    return begin


def tell(scheduler, path, trial_id, epoch, accuracy, kwh):
    row = {"trial_id": trial_id, "epoch": epoch, "val_accuracy": accuracy, "kwh": kwh}
    decision = scheduler.on_trial_result(None, SimpleNamespace(trial_id=trial_id), row)
    append_row(path, row)
    return decision == TrialScheduler.CONTINUE


def test_a_resumed_study_decides_as_it_had_decided(start):
    study, path, searcher = start("scheduler: moasha", ("epochs: {choice: [2, 4, 8]}", "epochs: 8"))
    scheduler = make_scheduler(study, path)
    for name in "abcd":
        assert searcher.suggest(name)["epochs"] == (2 if name == "b" else 8)
    assert tell(scheduler, path, "a", 1, 0.5, 1.0)
    assert tell(scheduler, path, "b", 1, 0.4, 1.1)  # a baseline
    assert not tell(scheduler, path, "c", 1, 0.3, 1.2)
    assert tell(scheduler, path, "d", 1, 0.9, 0.9)
    # The driver dies before the searcher is told of c.
    again = make_scheduler(study, path)
    assert again.state() == scheduler.state() and again.stopped == {2: 1}
    _settle_ended(study, path)
    states = [trial.state for trial in open_study(path).get_trials()]
    assert states[:4] == [TrialState.RUNNING, TrialState.RUNNING, TrialState.PRUNED, TrialState.RUNNING]
    searcher = OptunaSearcher(study, path)
    assert [searcher.suggest(name)["lease"]["trial"] for name in ("a2", "b2", "d2", "e")] == ["0", "1", "3", "4"]
    assert tell(again, path, "d2", 1, 0.0, 9.0)  # reports again
    assert tell(again, path, "a2", 3, 0.6, 2.0)
    assert not tell(again, path, "d2", 3, 0.5, 2.1)
    assert not tell(again, path, "e", 1, 0.2, 9.0)
    assert make_scheduler(study, path).state() == again.state()


@pytest.mark.parametrize(
    ("schedule", "horizon"),
    [("{name: constant}", math.inf), ("{name: cosine}", 8), ("{name: step}", 8)],
)
def test_the_horizon_is_the_end_of_the_learning_rates_schedule(start, schedule, horizon):
    study, path, searcher = start(
        "scheduler: moasha", ("  seed: {int: [0, 3]}", f"  seed: {{int: [0, 3]}}\n  lr_schedule: {schedule}")
    )
    searcher.suggest("a")
    scheduler = make_scheduler(study, path)
    tell(scheduler, path, "a", 1, 0.5, 1.0)
    assert scheduler.state()["rungs"] == [[0, 1, [0], [[horizon, -0.5, 1.0]]]]


def test_a_dense_tail_is_a_horizon_too(start):
    study, path, searcher = start(
        "scheduler: moasha", ("    estimator:", "    dense_tail: 0.2\n    estimator:"),
        ("  seed: {int: [0, 3]}", "  seed: {int: [0, 3]}\n  lr_schedule: {name: constant}"),
    )  # fmt: skip
    for name in "abc":
        planned = searcher.suggest(name)["epochs"]
    scheduler = make_scheduler(study, path)
    tell(scheduler, path, "c", 1, 0.5, 1.0)
    assert scheduler.state()["rungs"] == [[0, 1, [2], [[planned, -0.5, 1.0]]]]


def test_none_looks_at_nothing(start):
    study, path, _ = start("scheduler: none")
    assert make_scheduler(study, path) is None


def test_asha_looks_at_quality_alone(start):
    study, path, searcher = start("scheduler: asha", ("search:", "objectives: {kwh: min, f1: max}\nsearch:"))
    for name in "abcd":
        searcher.suggest(name)
    scheduler = make_scheduler(study, path)
    for name, f1 in {"a": 0.5, "b": 0.4, "c": 0.9}.items():
        trial = SimpleNamespace(trial_id=name)
        scheduler.on_trial_result(None, trial, {"epoch": 1, "f1": f1, "kwh": None})
    assert scheduler.state()["rungs"][0][3][0][1:] == [-0.5]
    assert scheduler.stopped == {}


HOPELESS = """
name: hopeless
objectives: {val_accuracy: max, tflop: min}
config:
  data: {name: digits, subset: 256, batch_size: 32}
  model: {args: {width: 4}}
  optimizer: {lr: {grid: [0.000001, 0.0000001, 0.1]}}
  epochs: 4
  sparsity: {estimator: mask, p0: 0.5}
baselines:
  - {sparsity.estimator: dense, optimizer.lr: 0.1}
search: {scheduler: moasha, grace_period: 2, reduction_factor: 3, concurrent: 1}
"""


@pytest.mark.slow
def test_a_real_search_stops_the_hopeless_and_its_front_is_fully_trained(tmp_path, ray_address):
    """The masked trials compute what the dense one does, so those that do not learn are dominated at epoch 2."""
    (tmp_path / "hopeless.yaml").write_text(HOPELESS)
    result = CliRunner().invoke(app, ["search", str(tmp_path / "hopeless.yaml"), "--results", str(tmp_path)])
    assert result.exit_code == 0, result.output
    path = tmp_path / "hopeless"
    study = load_study(path)
    trials = study.trials.set_index("trial")
    stopped = trials[trials["state"] == "stopped"]
    assert set(stopped["config.optimizer.lr"]) == {0.000001, 0.0000001} and len(stopped) == 2
    assert stopped["epoch"].tolist() == [2, 2] and (stopped["kwh"] > 0).all()
    assert trials.loc[trials["state"] != "stopped", "state"].tolist() == ["complete"] * 2
    front = pd.read_csv(path / "front.csv")["trial"].tolist()
    assert front and set(front) <= set(trials.index[trials["epoch"] == 4])
    assert {trial.number for trial in open_study(path).best_trials} == set(front)
    storage = open_study(path)
    assert [storage.get_trials()[number].state for number in stopped.index] == [TrialState.PRUNED] * 2
    log = [json.loads(line) for line in (path / "epochs.jsonl").read_text().splitlines()]
    assert len(log) == 2 * 4 + 2 * 2
    bill = study_bill(path).bill
    assert {str(number) for number in stopped.index} <= set(bill.trials)
    assert all(bill.trials[str(number)].kwh > 0 for number in stopped.index)
    rebuilt = make_scheduler(load_study_file(path / "study.yaml"), path)
    assert set(rebuilt.stopped) == set(stopped.index)
