"""Trials that wait at rungs: by hand, by invariants, and through the searcher, the budget and a real search."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from typer.testing import CliRunner

from sbp_tune.cli import app
from sbp_tune.config import TrainConfig
from sbp_tune.study.budget_keeper import BudgetKeeper
from sbp_tune.study.epochs import append_row, read_log
from sbp_tune.study.ledger import study_bill
from sbp_tune.study.promotion import Promotion
from sbp_tune.study.results import load_study
from sbp_tune.study.retries import note_death
from sbp_tune.study.rungs import Ladder
from sbp_tune.study.scheduler import Contestant
from sbp_tune.study.schedulers import make_scheduler
from sbp_tune.study.searcher import OptunaSearcher, enqueue_fixed_points
from sbp_tune.study.states import state_of, waits
from sbp_tune.study.storage import attempts, create_study, open_study, set_attribute
from trainables.response import response

PLAN = 12


class Play:
    """A scheduler with rungs at 1, 3 and 9, a third goes on; trials report (accuracy, kWh), all of one plan."""

    def __init__(self, exempt=(), ladder=(1, 3), horizons=None):
        horizons = horizons or {}
        objectives = {"val_accuracy": "max", "kwh": "min"}

        def contestant_of(number):
            return Contestant(int(number), PLAN, horizons.get(int(number), math.inf), int(number) in exempt)

        self.make = lambda: Promotion(objectives, contestant_of, Ladder(*ladder))
        self.scheduler, self.log = self.make(), []

    def report(self, number, epoch, accuracy, kwh):
        """Whether a trial goes on at once."""
        row = {"trial_id": str(number), "epoch": epoch, "val_accuracy": accuracy, "kwh": kwh}
        self.log.append(row)
        return self.scheduler.on_trial_result(None, SimpleNamespace(trial_id=str(number)), row) == "CONTINUE"

    def next(self):
        number = self.scheduler.next_promoted()
        if number is not None:
            self.scheduler.promote(number)
        return number


def test_rungs_worked_out_by_hand():
    play = Play()
    assert not play.report(0, 1, 0.5, 2.0) and not play.report(1, 1, 0.4, 3.0)
    assert play.next() is None  # of two trials a third is none
    assert not play.report(2, 1, 0.3, 3.5)  # behind both
    assert play.next() == 0 and play.next() is None  # 1 is dominated, and one of three goes on
    assert play.report(0, 2, 0.1, 9.0)  # between rungs nobody looks
    assert not play.report(0, 3, 0.6, 6.0)
    assert not play.report(3, 1, 0.2, 4.0) and not play.report(4, 1, 0.1, 5.0) and play.next() is None
    assert not play.report(5, 1, 0.05, 6.0)
    assert play.next() == 1  # the rung has filled: two of six
    assert play.report(6, 1, 0.9, 1.0)  # ahead of all: it does not even stop
    assert not play.report(1, 3, 0.5, 7.0) and not play.report(6, 3, 0.4, 8.0)
    assert play.next() == 0  # of the rung at 3
    assert play.scheduler.stopped == {}
    assert sorted(play.scheduler.waiting.items()) == [(1, (0, 3)), *((n, (0, 1)) for n in (2, 3, 4, 5)), (6, (0, 3))]


def test_the_highest_rung_is_first():
    play = Play(exempt=(7, 8, 9))
    for number, kwh in ((7, 5.0), (8, 6.0), (9, 7.0)):
        for epoch in (1, 3):
            assert play.report(number, epoch, 0.1, kwh * epoch)  # baselines never wait, and are rivals
    assert play.report(0, 1, 0.5, 1.0) and play.report(1, 1, 0.6, 1.1)
    assert play.report(0, 3, 0.5, 3.0)
    play.scheduler.waiting = {0: (0, 3), 1: (0, 1)}
    assert play.next() == 0 and play.next() == 1


def test_a_trial_without_a_number_is_stopped_for_good():
    play = Play()
    assert not play.report(0, 1, math.nan, 1.0)
    assert play.scheduler.stopped == {0: 1} and play.scheduler.waiting == {}


def test_a_trial_is_compared_with_those_of_no_nearer_horizon():
    play = Play(horizons={0: 12, 1: 12, 2: 6, 3: 6})
    assert not play.report(0, 1, 0.5, 1.0) and not play.report(1, 1, 0.4, 1.1)
    play.report(2, 1, 0.9, 0.9)  # its learning rate is down sooner: no rival of the first two
    assert play.next() == (2 if 2 in play.scheduler.waiting else None)
    assert play.next() is None, "of two trials a third is none"
    assert set(play.scheduler.waiting) == {0, 1}


values = st.tuples(st.integers(0, 5), st.integers(1, 5))


@st.composite
def searches(draw):
    """(play, trained, waiting): a search of some trials on some workers, to where nobody can go on."""
    results = draw(st.lists(st.lists(values, min_size=PLAN, max_size=PLAN), min_size=1, max_size=14))
    play, at, busy, trained, fresh = Play(), {}, [], [], 0
    workers = draw(st.integers(1, 3))
    while True:
        while len(busy) < workers:
            if (number := play.next()) is None:
                if fresh == len(results):
                    break
                number, fresh = fresh, fresh + 1
            busy.append(number)
        if not busy:
            return play, results, trained
        number = busy.pop(draw(st.integers(0, len(busy) - 1)))
        at[number] = epoch = at.get(number, 0) + 1
        goes_on = play.report(number, epoch, *results[number][epoch - 1])
        if epoch == PLAN:
            trained.append(number)
        elif goes_on:
            busy.append(number)


@given(searches())
def test_whoever_is_dominated_by_none_at_its_rung_goes_on_and_whoever_is_far_behind_does_not(search):
    play, results, trained = search
    rungs = {epoch: (numbers, rows) for _, epoch, numbers, rows in play.scheduler.state()["rungs"]}
    for epoch, (numbers, rows) in rungs.items():
        if len(numbers) < 3:
            continue
        costs = [tuple(row[1:]) for row in rows]
        for number, own in zip(numbers, costs, strict=True):
            better = sum(a <= own[0] and b <= own[1] and (a, b) != own for a, b in costs)
            waits_here = play.scheduler.waiting.get(number) == (0, epoch)
            assert better or not waits_here
            assert waits_here or number in trained or play.scheduler.waiting.get(number, (0, 0))[1] > epoch
    assert set(trained) | set(play.scheduler.waiting) == set(range(len(results)))
    assert not set(trained) & set(play.scheduler.waiting)


@given(searches())
def test_rebuilt_from_the_log_it_is_what_it_was(search):
    play, *_ = search
    again = play.make()
    again.replay(play.log)
    assert again.state()["rungs"] == play.scheduler.state()["rungs"]
    assert again.waiting == play.scheduler.waiting


def test_saved_and_restored(tmp_path):
    play = Play()
    for number in range(4):
        play.report(number, 1, 0.1 * number, 1.0 + number)
    assert play.scheduler.waiting
    play.scheduler.save(str(tmp_path / "state"))
    again = play.make()
    again.restore(str(tmp_path / "state"))
    assert again.state() == play.scheduler.state() and again.waiting == play.scheduler.waiting
    assert again.next_promoted() == play.scheduler.next_promoted()


class Search:
    """A study whose trials are played by hand; the baselines train 8 and 2 epochs."""

    def __init__(self, study, path, budget=False):
        self.study, self.path = study, path
        self.scheduler = make_scheduler(study, path)
        self.keeper = BudgetKeeper(study, path, lambda line: None)
        admits = self.keeper.admits if budget else None
        self.searcher = OptunaSearcher(study, path, admits, scheduler=self.scheduler)

    def report(self, name, epoch, accuracy, kwh, trained=False):
        row = {"trial_id": name, "epoch": epoch, "val_accuracy": accuracy, "kwh": kwh, "fully_trained": trained}
        append_row(self.path, row | {"time_this_iter_s": 1.0})
        self.keeper(name, row | {"time_this_iter_s": 1.0})
        goes_on = self.scheduler.on_trial_result(None, SimpleNamespace(trial_id=name), row) == TrialScheduler.CONTINUE
        if trained or not goes_on:
            self.searcher.on_trial_complete(name, row)
        return goes_on and not trained

    def states(self):
        return [(trial.state.name, state_of(trial)) for trial in open_study(self.path).get_trials() if attempts(trial)]


@pytest.fixture
def start(tmp_path, make_study):
    def begin(*replacements, budget=None):
        search = "trials: 4, sampler: random, scheduler: moasha, halving: promotion, reduction_factor: 2"
        limit = f"\nbudget: {{kwh: {budget}}}" if budget else ""
        study = make_study(
            ("search: {trials: 6}", f"search: {{{search}}}{limit}"), ("epochs: {choice: [2, 4, 8]}", "epochs: 8"),
            *replacements,
        )  # fmt: skip
        if not (tmp_path / "study.db").exists():
            enqueue_fixed_points(create_study(tmp_path, study.file.name, study.objectives, {}), study)
        return Search(study, tmp_path, budget=budget is not None)

    return begin


def test_a_trial_that_waited_goes_on_as_another_attempt_before_any_other_is_proposed(start):
    search = start()
    for name in "abcd":
        search.searcher.suggest(name)
    assert search.report("a", 1, 0.5, 2.0) and search.report("b", 1, 0.4, 2.1)  # baselines
    assert not search.report("c", 1, 0.3, 2.2)
    assert search.states()[2] == ("RUNNING", "stopped")
    folder = search.path / "ray" / "c" / "checkpoint_000000"
    folder.mkdir(parents=True)
    assert search.searcher.suggest("e")["lease"]["trial"] == "4"  # nobody may go on: a new one
    assert search.report("d", 1, 0.9, 1.0)  # ahead of all
    assert not search.report("e", 1, 0.1, 3.0)
    assert search.searcher.suggest("f")["lease"] == {"folder": str(search.path / "energy"), "trial": "5", "attempt": 0}
    assert not search.report("f", 1, 0.05, 3.1)  # three of six may go on: a, b and d are ahead of c
    assert search.searcher.suggest("g") is None  # all are proposed; those that run may yet move the rungs
    # The driver dies, and another goes on.
    again = start()
    assert set(again.scheduler.waiting) == {2, 4, 5}
    assert [again.searcher.suggest(name)["lease"]["trial"] for name in ("a2", "b2", "d2")] == ["0", "1", "3"]
    again.scheduler.next_promoted = lambda: 2 if 2 in again.scheduler.waiting else None
    config = again.searcher.suggest("c2")
    assert config["lease"]["trial"] == "2" and config["lease"]["attempt"] == 1
    assert config["resume_from"] == [str(folder)]
    assert again.states()[2] == ("RUNNING", "running")
    for name in ("a2", "b2", "d2", "c2"):
        again.report(name, 8, 0.9, 9.0, trained=True)
    assert again.searcher.suggest("h") == Searcher.FINISHED  # the others wait for nobody
    assert [state for state, _ in again.states()] == ["COMPLETE"] * 4 + ["RUNNING"] * 2
    assert all(waits(trial) for trial in open_study(again.path).get_trials()[4:])


def test_an_attempt_that_dies_after_the_trial_was_promoted_is_followed_by_another(start):
    search = start()
    for name in "abc":
        search.searcher.suggest(name)
    assert not search.report("c", 1, 0.3, 2.2)
    search.scheduler.next_promoted = lambda: 2 if 2 in search.scheduler.waiting else None
    assert search.searcher.suggest("c2")["lease"]["attempt"] == 1
    search.searcher.on_trial_complete("c2", error=True)
    note_death(open_study(search.path), 2, "c2", "gone")
    assert search.searcher.suggest("d")["lease"]["trial"] == "3"  # it rests for a second
    set_attribute(open_study(search.path), 2, "deaths", {"c2": 0.0})
    assert search.searcher.suggest("c3")["lease"] == {
        "folder": str(search.path / "energy"), "trial": "2", "attempt": 2,
    }  # fmt: skip


def test_what_a_trial_that_waits_would_need_is_not_reserved(start):
    search = start(budget=60)
    for name in "abc":
        search.searcher.suggest(name)
    for name, kwh in (("a", 3.0), ("b", 3.0)):
        assert search.report(name, 1, 0.5, kwh)
    assert not search.report("c", 1, 0.4, 3.1)
    # Used: 9.1; a needs 21 more, b 3, and the next about 25: with the 22 of c it would be too much.
    config = search.searcher.suggest("d")
    assert isinstance(config, dict) and config["lease"]["trial"] == "3"


def test_a_budget_that_is_used_up_ends_a_search_in_which_others_wait(start):
    search = start(budget=9)
    for name in "abc":
        search.searcher.suggest(name)
    assert not search.report("c", 1, 0.4, 3.1)
    search.report("a", 8, 0.9, 5.0, trained=True)
    search.report("b", 2, 0.9, 1.0, trained=True)
    assert search.searcher.suggest("d") == Searcher.FINISHED


@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAIL])
def test_who_waited_and_has_ended_holds_up_nobody(start, state):
    search = start()
    for name in "abcd":
        search.searcher.suggest(name)
    assert not search.report("c", 1, 0.4, 3.1) and not search.report("d", 1, 0.3, 3.2)
    search.scheduler.next_promoted = lambda: min(search.scheduler.waiting, default=None)
    open_study(search.path).tell(2, state=state)
    assert search.searcher.suggest("d2")["lease"] == {
        "folder": str(search.path / "energy"), "trial": "3", "attempt": 1,
    }  # fmt: skip


def test_a_trial_whose_last_attempt_has_not_ended_yet_is_not_begun_again(start):
    """Ray ends a trial some time after the scheduler has said so: a checkpoint is still being saved, say."""
    search = start()
    for name in "abc":
        search.searcher.suggest(name)
    row = {"trial_id": "c", "epoch": 1, "val_accuracy": 0.4, "kwh": 3.1}
    search.scheduler.on_trial_result(None, SimpleNamespace(trial_id="c"), row)
    search.scheduler.next_promoted = lambda: min(search.scheduler.waiting, default=None)
    assert search.searcher.suggest("d")["lease"]["trial"] == "3"
    search.searcher.on_trial_complete("c", row)
    assert search.searcher.suggest("c2")["lease"]["trial"] == "2"


PLAYED = """
name: played
config:
  data: {name: cifar10, root: nowhere}
  model: {name: resnet18, stem: cifar}
  optimizer: {lr: {log_uniform: [0.02, 0.4]}}
  epochs: {choice: [4, 12]}
  sparsity: {estimator: {choice: [mask, batch_slice, prefix]}, p0: {uniform: [0.1, 1.0]}}
baselines:
  - {sparsity.estimator: dense, epochs: 12}
search: {sampler: random, trials: 12, scheduler: moasha, halving: promotion}
energy: {country: IRL}
simulate: {}
"""


def test_a_search_in_which_trials_wait_trains_no_epoch_twice(tmp_path, ray_address):
    (tmp_path / "played.yaml").write_text(PLAYED)
    result = CliRunner().invoke(app, ["search", str(tmp_path / "played.yaml"), "--results", str(tmp_path)])
    assert result.exit_code == 0, result.output
    path = tmp_path / "played"
    study = load_study(path)
    trials = study.trials.set_index("trial")
    assert len(trials) == 13 and set(trials["state"]) == {"complete", "stopped"}
    records = open_study(path).get_trials()
    assert {"COMPLETE": "complete", "PRUNED": "stopped"}[records[3].state.name] == trials.loc[3, "state"]
    log = read_log(path)
    assert len({(attempt_of(records, row["trial_id"]), row["epoch"]) for row in log}) == len(log)
    for number, row in trials.iterrows():
        curve = response(TrainConfig.model_validate(study.config_of(number)))
        epochs = study.epochs[study.epochs["trial"] == number]["epoch"].tolist()
        assert epochs == list(range(1, len(epochs) + 1))
        assert len(epochs) == (len(curve) if row["state"] == "complete" else row["epoch"])
        assert row["state"] == "complete" or len(epochs) in (1, 3, 9)
    assert (trials["attempts"] > 1).any(), "some waited and went on"
    assert "waits epoch 1/" in result.output and "goes on" in result.output
    assert study_bill(path) is None


def attempt_of(records, trial_id):
    return next(record.number for record in records if trial_id in attempts(record))
