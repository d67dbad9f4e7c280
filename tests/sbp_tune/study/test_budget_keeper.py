"""The budget between the real searcher, storage and log; what Ray would do in between is played here."""

import time

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sbp_tune.energy.carbon import co2_kg
from sbp_tune.study.budget import Amount
from sbp_tune.study.budget_keeper import BudgetKeeper, limits_of
from sbp_tune.study.epochs import append_row
from sbp_tune.study.searcher import OptunaSearcher, enqueue_fixed_points
from sbp_tune.study.storage import create_study, open_study
from sbp_tune.units import readable_energy

KWH = {"dense": 3.0, "mask": 2.0}  # of an epoch


class Played:
    """A study under a budget, trial by trial."""

    def __init__(self, study, path):
        self.said = []
        self.keeper = BudgetKeeper(study, path, self.said.append)
        self.searcher = OptunaSearcher(study, path, self.keeper.admits)
        self.path, self.configs, self.done = path, {}, {}

    def suggest(self, name):
        config = self.searcher.suggest(name)
        if isinstance(config, dict):
            self.configs[name], self.done[name] = config, 0
        return config

    def train(self, name, epochs=None, accuracy=0.9):
        """Runs a trial on for so many epochs, or to its end."""
        config, done = self.configs[name], self.done[name]
        self.done[name] = last = config["epochs"] if epochs is None else done + epochs
        for epoch in range(done + 1, last + 1):
            kwh = epoch * KWH[config["sparsity"]["estimator"]]
            row = {"trial_id": name, "epoch": epoch, "kwh": kwh, "time_this_iter_s": 5.0, "timestamp": time.time()}
            row |= {"val_accuracy": accuracy, "fully_trained": epoch == config["epochs"]}
            self.keeper(name, row)
            append_row(self.path, row)
        if last == config["epochs"]:
            self.searcher.on_trial_complete(name, row)

    def run_all(self):
        names = []
        while isinstance(self.suggest(f"t{len(names)}"), dict) and not self.keeper.stop_all():
            names.append(f"t{len(names)}")
            self.train(names[-1])
        return names


@pytest.fixture
def start(tmp_path, make_study):
    def begin(budget, *replacements):
        search = f"search: {{trials: 6, sampler: random}}\nbudget: {budget}"
        study = make_study(("search: {trials: 6}", search), *replacements)
        if not (tmp_path / "study.db").exists():
            enqueue_fixed_points(create_study(tmp_path, study.file.name, study.objectives, {}), study)
        return Played(study, tmp_path)

    return begin


def states(path):
    return [trial.state for trial in open_study(path).get_trials()]


def test_no_trial_starts_that_cannot_finish(start, tmp_path):
    """The controls take 24 and 6 kWh; of what is left, the next, another estimator, is estimated by their epochs."""
    played = start("{kwh: 31}")
    assert played.run_all() == ["t0", "t1"]
    needed = readable_energy(3 * epochs_of(tmp_path, 2))
    used = "30.0 kWh of 31.0 kWh used"
    assert played.said == [f"Budget: {used}, the next trial would take about {needed}: no more trials are started."]
    assert states(tmp_path)[:2] == [TrialState.COMPLETE] * 2


def epochs_of(path, number):
    return open_study(path).get_trials()[number].user_attrs["config"]["epochs"]


def test_a_raised_budget_goes_on_where_the_search_ended(start, tmp_path):
    first = start("{kwh: 31}")
    first.run_all()
    again = start("{kwh: 31}")
    assert "30.0 kWh of 31.0 kWh used, the next trial would take about" in again.keeper.used_up()
    raised = start("{kwh: 1000}")
    assert raised.keeper.used_up() is None
    third = raised.suggest("third")
    assert third["epochs"] == epochs_of(tmp_path, 2) and third["lease"]["trial"] == "2"
    assert third["lease"]["attempt"] == 0  # it had never started


def test_a_trial_waits_for_what_running_ones_may_leave(start):
    same_length = ("epochs: {choice: [2, 4, 8]}", "epochs: 8"), ("epochs: 2, ", "")
    played = start("{kwh: 50}", *same_length)
    assert played.suggest("a")["epochs"] == 8 and played.suggest("b")["epochs"] == 8  # nothing is known yet
    played.train("a", epochs=1)
    played.train("b", epochs=1)
    assert played.suggest("c") is None and played.suggest("c") is None and played.said == []  # 6 + 21 + 21 + 24 > 50
    played.searcher.on_trial_complete("b", {"val_accuracy": 0.1})  # stopped early: 6 + 21 + 24 > 50 still
    assert played.suggest("c") is None
    played.train("a", epochs=1)
    played.searcher.on_trial_complete("a", {"val_accuracy": 0.1})
    assert played.suggest("c")["lease"]["trial"] == "2" and played.said == []


def test_all_is_counted_over_all_starts(start, tmp_path):
    first = start("{kwh: 1000}")
    first.suggest("a")
    first.train("a")
    first.suggest("b")
    first.train("b", epochs=1)  # and then it is killed
    second = start("{kwh: 1000}")
    assert second.keeper._spending.kwh == pytest.approx(27)
    second.suggest("b again")
    second.train("b again")  # no checkpoint: its first epoch runs again
    assert second.keeper._spending.kwh == pytest.approx(27 + 6)
    assert start("{kwh: 33}").keeper.stop_all() and not start("{kwh: 33.1}").keeper.stop_all()


def test_what_runs_is_stopped_when_the_budget_is_used_up(start):
    played = start("{kwh: 5}")
    played.suggest("a")
    played.train("a", epochs=1)
    assert not played.keeper.stop_all()
    played.train("a", epochs=1)
    assert played.keeper.stop_all() and played.keeper.stop_all()
    assert played.said == ["Budget: 6.00 kWh of 5.00 kWh used: trials that still run are stopped."]
    assert not isinstance(played.suggest("b"), dict)


def test_co2_is_a_limit_on_kwh(make_study):
    energy = "\nenergy: {country: IRL, pue: 1.5}"
    study = make_study(("search: {trials: 6}", "budget: {co2_kg: 3, hours: 2}" + energy))
    assert limits_of(study) == Amount(pytest.approx(3 / co2_kg(1.0, "IRL", 1.5)), 7200)
    both = make_study(("search: {trials: 6}", "budget: {co2_kg: 3, kwh: 0.1}" + energy))
    assert limits_of(both) == Amount(0.1, None)


def test_hours_go_on_where_the_last_start_ended(start, tmp_path):
    first = start("{hours: 1}")
    first.keeper.begin()
    time.sleep(0.05)
    first.keeper.end()
    storage = open_study(tmp_path)
    ((began, ended),) = storage.user_attrs["starts"]
    assert ended - began == pytest.approx(0.05, abs=0.04)
    storage.set_user_attr("starts", [[began - 3559, began]])
    second = start("{hours: 1}")
    assert second.suggest("a")["epochs"] == 8 and not second.keeper.stop_all()
    second.train("a")  # 40 s of the 41 that are left
    assert second.suggest("b")["epochs"] == 2  # beside each other
    storage.set_user_attr("starts", [[began - 3595, began]])
    (tmp_path / "epochs.jsonl").write_text((tmp_path / "epochs.jsonl").read_text().replace('"timestamp"', '"when"'))
    third = start("{hours: 1}")
    assert third.suggest("b again") == Searcher.FINISHED
    used = "0.999 h of 1 h used"
    assert third.said == [f"Budget: {used}, the next trial would take about 0.00278 h: no more trials are started."]
    storage.set_user_attr("starts", [[began - 3600, began]])
    assert start("{hours: 1}").keeper.stop_all()


def test_it_ends_when_trials_gain_too_little(start):
    """The first trial makes the reference, (0, 48 kWh): the second, a quarter as dear, gains, the next two hardly."""
    played = start("{hypervolume_gain: {per_kwh: 1.0e-3, trials: 2}}")
    for name, accuracy in zip("abcd", (0.8, 0.7, 0.1, 0.1), strict=True):
        assert isinstance(played.suggest(name), dict) and played.said == []
        played.train(name, accuracy=accuracy)
    assert played.suggest("e") == Searcher.FINISHED
    (line,) = played.said
    assert line.startswith("Budget: the last 2 trials gained ") and line.endswith(
        " of hypervolume per kWh, less than 0.001: no more trials are started."
    )
    assert "the last 2 trials gained" in start("{hypervolume_gain: {per_kwh: 1.0e-3, trials: 2}}").keeper.used_up()
    for per_kwh, trials in (("1.0e+9", 4), ("1.0e-9", 3)):
        assert start(f"{{hypervolume_gain: {{per_kwh: {per_kwh}, trials: {trials}}}}}").keeper.used_up() is None
