"""What every sampler must do in a study; real samplers on a storage in memory, for speed."""

import math
from itertools import pairwise

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sbp_tune.config import TrainConfig
from sbp_tune.errors import InputError
from sbp_tune.files import parse_yaml
from sbp_tune.study.domains import Range
from sbp_tune.study.file import Study
from sbp_tune.study.preflight import check_on_this_machine
from sbp_tune.study.samplers import GP_TRIALS, SAMPLERS, make_sampler, resolved_sampler
from sbp_tune.study.searcher import OptunaSearcher, enqueue_fixed_points
from sbp_tune.study.space import Parameter, Space
from sbp_tune.study.storage import create_study, open_study

FLAT = """
name: flat
config:
  data: {name: digits}
  epochs: {int: [1, 3]}
  optimizer: {lr: {choice: [0.05, 0.1, 0.2]}}
  sparsity: {estimator: mask, p0: {choice: [0.2, 0.5, 1.0]}, p_min: 0.05, schedule: constant}
"""
CONDITIONAL = """
name: conditional
config:
  data: {name: digits}
  epochs: {int: [1, 3]}
  sparsity:
    estimator: {choice: [mask, budget]}
    schedule: {choice: [constant, linear]}
    p0: {choice: [0.2, 0.5, 1.0]}
    k: {choice: [0.01, 0.1], when: {schedule: linear}}
    rho: {choice: [0.3, 0.6]}
"""
BASELINES = """
baselines:
  - {sparsity.estimator: dense, epochs: 3}
  - {sparsity.estimator: dense, epochs: 2}
"""
QUICK = ("tpe", "random", "grid")
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in (*SAMPLERS, "optuna.samplers:TPESampler")
]
SPACES = {"flat": FLAT, "conditional": CONDITIONAL}
POINTS = {"flat": 27, "conditional": 3 * (3 + 3 * 2 + 2)}
TRIALS = 13  # three with a model, beyond the ten that GP and TPE begin with


pytestmark = pytest.mark.usefixtures("storage_in_memory")


@pytest.fixture
def begin(tmp_path):
    """begin(sampler, space, **search) -> (study, directory, searcher)"""

    def start(sampler, space="flat", folder="study", baselines=BASELINES, **search):
        settings = {"sampler": sampler, "seed": 5} | ({} if sampler == "grid" else {"trials": TRIALS}) | search
        study = Study(parse_yaml(f"{SPACES[space]}{baselines}\nsearch: {settings!r}", "s.yaml"), "s.yaml")
        path = tmp_path / folder
        path.mkdir()
        enqueue_fixed_points(create_study(path, study.file.name, study.objectives, {}), study)
        return study, path, OptunaSearcher(study, path)

    return start


def result(config):
    """Longer is better and dearer, dense the best."""
    kept = config["sparsity"]["p0"] if config["sparsity"]["estimator"] != "dense" else 1.0
    accuracy = 0.9 - 0.2 / config["epochs"] - 0.1 * (1 - kept) ** 2
    return {"val_accuracy": accuracy, "kwh": 1e-6 * config["epochs"] * (1 + kept), "fully_trained": True}


def run(searcher, end=result, at_once=4, most=1000, prefix="t"):
    """Runs trials, so many at once, the first to start the last to end; the configs by number in order of ending."""
    pending, configs, started = [], {}, 0
    while True:
        suggested = searcher.suggest(f"{prefix}{started}") if len(pending) < at_once and started < most else None
        if isinstance(suggested, dict):
            pending.append((f"{prefix}{started}", suggested))
            started += 1
        elif pending:
            name, config = pending.pop()
            searcher.on_trial_complete(name, end(config))
            configs[int(config["lease"]["trial"])] = config
        else:
            assert suggested == Searcher.FINISHED or started == most
            return configs


def plain(configs):
    return [{key: value for key, value in config.items() if key != "lease"} for _, config in sorted(configs.items())]


def trials(path):
    """All that ran."""
    return [trial for trial in open_study(path).get_trials() if "duplicate_of" not in trial.user_attrs]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("sampler", NAMES)
class TestEverySampler:
    def test_exact_number_of_distinct_trials_four_at_a_time(self, begin, sampler, space):
        study, path, searcher = begin(sampler, space)
        configs = plain(run(searcher))
        assert (
            len(configs) == study.total_trials == len(trials(path)) == 2 + (POINTS[space] if sampler == "grid" else 13)
        )
        assert {trial.state for trial in trials(path)} == {TrialState.COMPLETE}
        assert [config["sparsity"]["estimator"] for config in configs[:2]] == ["dense", "dense"]
        assert all(config not in configs[:index] for index, config in enumerate(configs))
        for config in configs:
            assert TrainConfig.model_validate(config).model_dump(mode="json") == config

    def test_nan_and_failures_are_told_and_do_not_stop_it(self, begin, sampler, space):
        def ends(config):
            number = int(config["lease"]["trial"])
            broken = [{"val_accuracy": math.nan}, {"kwh": 0.0}, {"fully_trained": False}, {"val_accuracy": None}, {}]
            return {**result(config), **broken[number % 5]}

        study, path, searcher = begin(sampler, space)
        assert len(run(searcher, ends)) == study.total_trials
        states = [trial.state for trial in trials(path)]
        fail, pruned, complete = TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE
        expected = [fail, fail, pruned, fail, complete]
        assert states == [expected[trial.number % 5] for trial in trials(path)]

    def test_another_searcher_on_its_storage_goes_on(self, begin, sampler, space):
        study, path, searcher = begin(sampler, space)
        run(searcher, most=11)
        searcher.suggest("lost")
        searcher.suggest("lost too")
        again = OptunaSearcher(study, path)
        run(again, prefix="again")
        assert len(trials(path)) == study.total_trials
        assert {trial.state for trial in trials(path)} == {TrialState.COMPLETE}
        assert [len(trial.user_attrs["attempts"]) for trial in trials(path)][11:13] == [2, 2]
        configs = [trial.user_attrs["config"] for trial in trials(path)]
        assert all(config not in configs[:index] for index, config in enumerate(configs))

    def test_one_seed_one_search(self, begin, sampler, space):
        first = plain(run(begin(sampler, space, "first")[2]))
        assert plain(run(begin(sampler, space, "second")[2])) == first
        if sampler != "grid":
            assert plain(run(begin(sampler, space, "other", seed=6)[2])) != first

    def test_constraints_leave_feasible_trials_on_the_front(self, begin, sampler, space):
        limits = ["kwh <= 0.9 * baseline", "val_accuracy >= baseline - 0.1"]
        _, path, searcher = begin(sampler, space, constraints=limits)
        dense = result({"epochs": 3, "sparsity": {"estimator": "dense"}})
        run(searcher)
        best = {trial.number for trial in open_study(path).best_trials}
        assert best and 0 not in best
        for trial in trials(path):
            accuracy, kwh = trial.values
            met = kwh <= 0.9 * dense["kwh"] and accuracy >= dense["val_accuracy"] - 0.1
            assert met == all(excess <= 0 for excess in trial.constraints.values()) and len(trial.constraints) == 2
            assert met or trial.number not in best


@pytest.mark.slow
@pytest.mark.parametrize("sampler", NAMES)
def test_a_space_that_is_used_up_ends_the_search(begin, sampler):
    _, path, searcher = begin(sampler, "flat", baselines="", **({} if sampler == "grid" else {"trials": 40}))
    assert len(run(searcher)) == len(trials(path)) == POINTS["flat"]
    assert (searcher.ended_early is None) == (sampler == "grid")


def test_the_grid_runs_in_order(begin):
    configs = plain(run(begin("grid", baselines="")[2]))
    keys = [(c["epochs"], c["optimizer"]["lr"], c["sparsity"]["p0"]) for c in configs]
    assert len(keys) == 27 and all(one < other for one, other in pairwise(keys))


@pytest.mark.parametrize("sampler", ["gp", "nsga2", pytest.param("nsga3", marks=pytest.mark.slow)])
def test_a_model_is_of_all_that_every_trial_has_whatever_the_baselines_lack(begin, sampler):
    """Optuna's own rule is what all trials so far had: with a dense baseline that would be the epochs alone."""
    study, path, searcher = begin(sampler)
    assert len(run(searcher)) == study.total_trials
    optuna_study = open_study(path)
    modelled = searcher._optuna.sampler.infer_relative_search_space(optuna_study, optuna_study.get_trials()[-1])
    assert set(modelled) == {"epochs", "optimizer.lr", "sparsity.p0"}
    common = optuna.search_space.intersection_search_space(optuna_study.get_trials())
    assert set(common) == {"epochs", "optimizer.lr"}


@pytest.mark.parametrize(("sampler", "first"), [("gp", False), ("nehvi", True)])  # who proposes the first ten
def test_beyond_its_trials_the_gaussian_process_leaves_it_to_tpe(sampler, first):
    space = {"x": FloatDistribution(0, 1)}
    whole = Space((Parameter("x", Range("uniform", 0.0, 1.0)),), {})
    study = optuna.create_study(sampler=make_sampler(sampler, 0, whole))

    def fill(upto):
        for index in range(len(study.get_trials(states=[TrialState.COMPLETE])), upto):
            trial = optuna.create_trial(params={"x": (index * 0.37) % 1}, distributions=space, value=float(index % 7))
            study.add_trial(trial)

    for known, by_model in ((9, first), (20, True), (GP_TRIALS + 1, False)):
        fill(known)
        trial = study.ask()
        assert ("x" in study.sampler.sample_relative(study, study.trials[-1], space)) == by_model
        study.tell(trial, state=TrialState.FAIL)


@pytest.mark.parametrize(
    ("flat", "count", "name"), [(True, 150, "gp"), (True, 151, "tpe"), (False, 10, "tpe"), (False, 500, "tpe")]
)
def test_auto_is_gp_for_small_flat_searches(flat, count, name):
    assert resolved_sampler("auto", flat, count) == name
    assert resolved_sampler("random", flat, count) == "random"


@pytest.mark.parametrize(
    ("space", "search", "name"),
    [
        ("flat", {}, "gp"),
        ("flat", {"trials": 200}, "tpe"),
        ("conditional", {}, "tpe"),
        ("flat", {"sampler": "nsga3"}, "nsga3"),
    ],
)
def test_a_resolved_file_says_which_sampler(space, search, name):
    study = Study(parse_yaml(f"{SPACES[space]}\nsearch: {search!r}", "s.yaml"), "s.yaml")
    assert study.document["search"]["sampler"] == name
    assert Study(study.document, "s.yaml").document == study.document


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("gpp", "found 'gpp'; allowed: auto, gp, nehvi, tpe, nsga2, nsga3, random, grid, or module:Class"),
        ("json:loads", "needs a class derived from optuna.samplers.BaseSampler"),
        ("not_there:Sampler", "not_there cannot be imported: No module named 'not_there'"),
        ("optuna.samplers:Nope", "optuna.samplers has no Nope"),
        ("optuna.samplers:GridSampler", "it cannot be made: TypeError"),
    ],
)
def test_a_sampler_that_cannot_be_made_is_one_line(name, problem):
    with pytest.raises(InputError) as error:
        make_sampler(name, 0)
    assert len(error.value.problems) == 1 and problem in str(error.value)


@pytest.mark.parametrize(
    ("space", "search", "problem"),
    [
        (FLAT, "{sampler: tpee}", "search.sampler: found 'tpee'; allowed: auto, gp, "),
        (FLAT, "{sampler: grid, trials: 5}", "nothing is left to propose"),
        (
            FLAT.replace("{int: [1, 3]}", "{int: [1, 30000]}"),
            "{sampler: grid}",
            "search.sampler: found grid, but the space has more than 100,000 points",
        ),
        (
            FLAT.replace("{choice: [0.05, 0.1, 0.2]}", "{uniform: [0.1, 1.0]}"),
            "{sampler: grid}",
            "search.sampler: found grid, which needs choice, grid or int everywhere; config.optimizer.lr has no end",
        ),
    ],
)
def test_bad_input(space, search, problem):
    with pytest.raises(InputError) as error:
        Study(parse_yaml(f"{space}\nsearch: {search}", "s.yaml"), "s.yaml")
    assert len(error.value.problems) == 1 and problem in str(error.value)


def test_a_sampler_of_the_users_is_looked_for_before_anything_starts():
    text = f"{FLAT}\nsimulate: {{}}\nsearch: {{sampler: 'not_there:Sampler'}}"
    with pytest.raises(InputError) as error:
        check_on_this_machine(Study(parse_yaml(text, "s.yaml"), "s.yaml"), None)
    assert str(error.value).startswith("s.yaml: search.sampler: found 'not_there:Sampler'; not_there cannot be")
