import pytest
from optuna.samplers import BaseSampler
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sbp_tune.files import parse_yaml
from sbp_tune.study.duplicates import Seen
from sbp_tune.study.file import Study
from sbp_tune.study.results import load_study
from sbp_tune.study.searcher import OptunaSearcher, enqueue_fixed_points
from sbp_tune.study.storage import create_study, open_study

pytestmark = pytest.mark.usefixtures("storage_in_memory")

SPACE = "data: {name: digits}, epochs: {choice: [1, 2, 3]}, seed: {int: [0, 3]}"
ENDLESS = "data: {name: digits}, optimizer: {lr: {uniform: [0.1, 1.0]}}"
DONE = {"val_accuracy": 0.9, "kwh": 1e-6, "fully_trained": True}


class Lowest(BaseSampler):
    """Proposes the lowest corner of the space again and again, and knows for which trials it was asked to."""

    def __init__(self):
        self.asked = set()

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def before_trial(self, study, trial):
        if "fixed_params" not in trial.system_attrs:
            self.asked.add(trial.number)

    def sample_independent(self, study, trial, param_name, param_distribution):
        return getattr(param_distribution, "choices", [None])[0] or param_distribution.low


@pytest.fixture
def start(tmp_path):
    """start(config, baselines, **search) -> (study, directory, searcher whose sampler repeats itself)"""

    def begin(config=SPACE, baselines="[]", **search):
        text = f"{{name: demo, config: {{{config}}}, baselines: {baselines}, search: {search!r}}}"
        study = Study(parse_yaml(text, "s.yaml"), "s.yaml")
        enqueue_fixed_points(create_study(tmp_path, study.file.name, study.objectives, {}), study)
        (tmp_path / "study.db").touch()
        (tmp_path / "study.yaml").write_text("name: demo\nobjectives: {val_accuracy: max, kwh: min}\n")
        searcher = OptunaSearcher(study, tmp_path)
        searcher._optuna.sampler = Lowest()
        return study, tmp_path, searcher

    return begin


def run(searcher, end=DONE, most=1000):
    configs = []
    while len(configs) < most and (config := searcher.suggest(f"t{len(configs)}")) != Searcher.FINISHED:
        searcher.on_trial_complete(f"t{len(configs)}", end)
        configs.append({key: value for key, value in config.items() if key != "lease"})
    return configs


def points(configs):
    return [(config["epochs"], config["seed"]) for config in configs]


@pytest.mark.parametrize("end", [DONE, {**DONE, "kwh": 0.0}, {**DONE, "fully_trained": False}])
def test_a_config_that_has_run_is_not_run_again_however_it_ended(start, end):
    _, path, searcher = start(trials=5)
    configs = points(run(searcher, end))
    assert len(configs) == len(set(configs)) == 5
    duplicates = [trial for trial in open_study(path).get_trials() if "duplicate_of" in trial.user_attrs]
    assert duplicates and {trial.state for trial in duplicates} == {TrialState.FAIL}
    assert duplicates[0].user_attrs["error"] == "duplicate of trial 0" and duplicates[0].user_attrs["duplicate_of"] == 0
    assert len(load_study(path).trials) == 5


def test_one_that_runs_is_not_started_again(start):
    _, _, searcher = start(trials=5)
    configs = [searcher.suggest(f"t{number}") for number in range(5)]
    assert len(set(points(configs))) == 5


@pytest.mark.parametrize("reproposals", [0, 3])
def test_the_sampler_is_asked_again_so_often_and_then_a_new_config_is_drawn(start, reproposals):
    _, path, searcher = start(trials=3, reproposals=reproposals)
    assert len(run(searcher)) == 3
    assert len(searcher._optuna.sampler.asked) == 1 + 2 * (1 + reproposals)
    assert sum("duplicate_of" in trial.user_attrs for trial in open_study(path).get_trials()) == 2 * (1 + reproposals)


def test_a_finite_space_is_used_up_and_the_search_says_so(start):
    study, path, searcher = start(trials=40)
    assert sorted(points(run(searcher))) == [(epochs, seed) for epochs in (1, 2, 3) for seed in range(4)]
    assert searcher.ended_early == "nothing is left to propose: the configs of the space have all run, or are running"
    again = OptunaSearcher(study, path)
    assert again.suggest("more") == Searcher.FINISHED and again.ended_early


def test_an_endless_space_is_not_used_up(start):
    _, _, searcher = start(ENDLESS, trials=6)
    rates = [config["optimizer"]["lr"] for config in run(searcher)]
    assert len(set(rates)) == 6 and searcher.ended_early is None


def test_a_restarted_searcher_knows_what_has_run(start):
    study, path, searcher = start(trials=12)
    first = points(run(searcher, most=7))
    again = OptunaSearcher(study, path)
    assert sorted(first + points(run(again))) == [(epochs, seed) for epochs in (1, 2, 3) for seed in range(4)]


def test_what_the_user_asks_for_runs_however_often(start):
    """Equal baselines, and a point of the grid that is a baseline."""
    config = "data: {name: digits}, epochs: {grid: [1, 2]}"
    _, _, searcher = start(config, "[{epochs: 2}, {epochs: 2}]")
    assert [config["epochs"] for config in run(searcher)] == [2, 2, 1, 2]
    assert searcher.ended_early is None


def test_each_point_of_a_grid_has_its_own_trials_and_those_that_cannot_be_new_are_left_out(start):
    _, path, searcher = start("data: {name: digits}, epochs: {choice: [1, 2]}, seed: {grid: [0, 1, 2]}", trials=4)
    assert sorted(points(run(searcher))) == [(epochs, seed) for epochs in (1, 2) for seed in range(3)]
    assert all(trial.state.is_finished() for trial in open_study(path).get_trials())


def test_values_without_effect_make_no_other_config(start):
    config = (
        "data: {name: digits}, sparsity: {estimator: mask, p0: 0.5, schedule: {choice: [constant, linear]}, "
        "k: {choice: [0.1, 0.2]}}"
    )
    _, _, searcher = start(config, trials=9)
    kept = [(config["sparsity"]["schedule"], config["sparsity"]["k"]) for config in run(searcher)]
    assert len(kept) == 3 and ("linear", 0.1) in kept and ("linear", 0.2) in kept


def test_where_it_runs_is_no_part_of_a_config(start):
    study, _, _ = start()
    seen, config = Seen(study, []), study.train_config({"epochs": 1, "seed": 0})
    seen.add(7, config)
    assert seen.number_of({**config, "cpu_threads": 8, "device": "cuda"}) == 7
    assert seen.number_of({**config, "seed": 1}) is None
