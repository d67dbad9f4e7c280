import warnings

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.search.optuna import OptunaSearch

from sbp_tune.config import check_config, is_meaningless
from sbp_tune.errors import InputError
from sbp_tune.study.domains import Options, Range
from sbp_tune.study.space import nested
from sbp_tune.study.space_parser import parse_space


def space_of(**sparsity):
    return parse_space({"sparsity": {"estimator": "mask", **sparsity}, "epochs": {"choice": [2, 4]}}, "demo.yaml")


def problems_of(tree):
    with pytest.raises(InputError) as error:
        parse_space(tree, "demo.yaml")
    return error.value.problems


def asked(study, space):
    trial = study.ask()
    values = space.suggest(trial)
    assert values == trial.params
    return values


def test_only_parameters_that_mean_something_are_asked_for(make_study):
    space = make_study(("choice: [mask]", "choice: [dense, mask]")).space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(60):
        values = asked(study, space)
        schedule, estimator = values.get("sparsity.schedule"), values["sparsity.estimator"]
        seen.add((estimator, schedule))
        assert ("sparsity.k" in values) == (estimator == "mask" and schedule != "constant")
        assert ("sparsity.p0" in values) == (estimator == "mask")
        assert not any(is_meaningless(key, values) for key in values)
        check_config(space.config(values), "trial", "config")
    assert seen == {("dense", None), *(("mask", schedule) for schedule in ("constant", "linear", "exponential"))}


def test_it_is_a_define_by_run_space_for_rays_own_searcher(make_study):
    space = make_study().space
    searcher = OptunaSearch(space.suggest, metric=["val_accuracy", "kwh"], mode=["max", "min"], seed=1)
    config = searcher.suggest("first")
    assert set(config) <= {parameter.key for parameter in space.parameters}
    check_config(space.config(config), "trial", "config")


def test_conditions_come_before_what_depends_on_them():
    tree = {
        "sparsity": {
            "k": {"uniform": [0, 1], "when": {"schedule": "linear"}},
            "schedule": {"choice": ["linear", "constant"], "when": {"epochs": [4]}},
            "estimator": {"choice": ["mask"]},
        },
        "epochs": {"choice": [2, 4]},
    }
    keys = [parameter.key for parameter in parse_space(tree, "demo.yaml").parameters]
    assert keys.index("epochs") < keys.index("sparsity.schedule") < keys.index("sparsity.k")


def test_a_condition_of_a_condition():
    tree = {
        "sparsity": {
            "estimator": {"choice": ["dense", "mask"]},
            "schedule": {"choice": ["linear", "constant"], "when": {"estimator": "mask"}},
            "k": {"uniform": [0, 1], "when": {"schedule": "linear"}},
        }
    }
    space = parse_space(tree, "demo.yaml")
    assert space.point({"sparsity.estimator": "dense"}) == {"sparsity.estimator": "dense"}
    assert space.point({"sparsity.estimator": "mask"})["sparsity.k"] == 0.5


def test_points_fill_in_the_middle_of_each_domain(make_study):
    point = make_study().space.point({"epochs": 4})
    assert point["optimizer.lr"] == pytest.approx(0.1)  # geometric
    assert point["sparsity.p0"] == pytest.approx(0.55) and point["seed"] == 1
    assert point["sparsity.schedule"] == "constant" and "sparsity.k" not in point


def test_lists_and_mappings_can_be_options():
    options = [[0.5, 0.75], [0.3]]
    space = parse_space({"lr_schedule": {"name": "step", "milestones": {"choice": options}}}, "demo.yaml")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna warns of categories that its storage cannot hold
        found = [asked_value(study, space) for _ in range(20)]
    assert [0.3] in found and [0.5, 0.75] in found


def asked_value(study, space):
    return space.suggest(study.ask())["lr_schedule.milestones"]


def test_a_grid_runs_every_active_combination_once():
    space = space_of(schedule={"grid": ["constant", "linear"]}, k={"grid": [0.1, 0.2], "when": {"schedule": "linear"}})
    assert list(space.grid_points()) == [
        {"sparsity.schedule": "constant"},
        {"sparsity.schedule": "linear", "sparsity.k": 0.1},
        {"sparsity.schedule": "linear", "sparsity.k": 0.2},
    ]


@pytest.mark.parametrize(
    ("sparsity", "problem"),
    [
        (
            {"p0": {"uniform": [0.1, 50]}},
            "config.sparsity.p0: found 50; p is a fraction, not a percent: the part that is kept, in (0, 1]",
        ),
        ({"p0": {"uniform": [1, 0.5]}}, "config.sparsity.p0: uniform: found [1, 0.5]; low must be below high"),
        ({"p0": {"uniform": 0.5}}, "config.sparsity.p0: uniform: found 0.5; needs two numbers, [low, high]"),
        ({"p0": {"log_uniform": [0, 0.5]}}, "config.sparsity.p0: log_uniform: found [0, 0.5]; low must be above 0"),
        ({"p0": {"uniform": [0.1, float("inf")]}}, "both finite"),
        ({"p0": {"int": [0.1, 0.5]}}, "config.sparsity.p0: int: found [0.1, 0.5]; needs two whole numbers"),
        ({"p0": {"choice": []}}, "config.sparsity.p0: choice: found []; needs a list of at least one value"),
        ({"p0": {"choice": [0.5, 0.5]}}, "config.sparsity.p0: choice: 0.5 stands there more than once"),
        ({"p0": {"uniform": [0.1, 1], "grid": [1]}}, "config.sparsity.p0: a domain has one of uniform, log_uniform"),
        (
            {"p0": {"unifrom": [0.1, 1]}},
            "config.sparsity.p0: found {'unifrom': [0.1, 1]}; input should be a valid number",
        ),
        ({"p9": {"uniform": [0.1, 1]}}, "config.sparsity.p9: unknown key"),
        (
            {"schedule": {"choice": ["linear", "lienar"]}},
            "config.sparsity.schedule: found 'lienar'; allowed: 'constant', 'linear', 'exponential',",
        ),
        (
            {"k": {"uniform": [0, 1], "when": {"schedul": "linear"}}, "schedule": {"choice": ["linear"]}},
            "config.sparsity.k: when.schedul: no such key beside it or above",
        ),
        (
            {"k": {"uniform": [0, 1], "when": {"schedule": "linear"}}, "schedule": {"choice": ["constant"]}},
            "config.sparsity.k: when.schedule: found 'linear', which never happens; "
            "config.sparsity.schedule is one of: constant",
        ),
        (
            {"k": {"uniform": [0, 1], "when": {"schedule": ["linear", "expo"]}}, "schedule": {"choice": ["linear"]}},
            "config.sparsity.k: when.schedule: config.sparsity.schedule: found 'expo'",
        ),
        (
            {"k": {"uniform": [0, 1], "when": {"p0": 0.5}}, "p0": {"uniform": [0.1, 1]}},
            "config.sparsity.k: when.p0: config.sparsity.p0 is uniform [0.1, 1]; needs a choice or grid",
        ),
        (
            {"k": {"grid": [0.1, 0.2], "when": {"schedule": "linear"}}, "schedule": {"choice": ["linear", "constant"]}},
            "config.sparsity.k: a grid runs every value, but it depends on config.sparsity.schedule, which is sampled",
        ),
        (
            {"p0": {"grid": [0.1, 0.2]}, "estimator": {"choice": ["mask", "dense"]}},
            "config.sparsity.p0: a grid runs every value, but it depends on config.sparsity.estimator",
        ),
        (
            {"p0": {"uniform": [0.1, 1]}, "estimator": "dense"},
            "config.sparsity.p0: has no effect: sparsity.estimator = dense",
        ),
        (
            {"k": {"uniform": [0.1, 1]}, "schedule": "constant"},
            "config.sparsity.k: has no effect: sparsity.estimator = mask, sparsity.schedule = constant",
        ),
        (
            {
                "k": {"choice": [0.1], "when": {"schedule": "linear"}},
                "schedule": {"choice": ["linear"], "when": {"k": 0.1}},
            },
            "conditions run in a circle: ",
        ),
    ],
)
def test_what_cannot_be_searched_is_one_line(sparsity, problem):
    problems = problems_of({"sparsity": {"estimator": "mask", **sparsity}, "epochs": {"choice": [2, 4]}})
    assert len(problems) == 1
    assert problems[0].startswith("demo.yaml: ") and problem in problems[0]


def test_all_problems_at_once():
    assert len(problems_of({"sparsity": {"p0": {"uniform": [2]}, "k": {"int": "x"}}})) == 2
    assert len(problems_of({"epochs": {"choice": [0, 1, -1]}, "sparsity": {"estimator": "mask", "p0": 3}})) == 3


numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(numbers, min_size=2, max_size=2, unique=True).map(sorted), st.sampled_from(["uniform", "int"]))
def test_a_range_contains_its_middle_and_its_ends(bounds, kind):
    low, high = (int(bound) for bound in bounds) if kind == "int" else bounds
    domain = Range(kind, low, high)
    assert all(domain.contains(value) for value in (domain.middle(), *domain.samples()))
    assert not domain.contains(high + 1) and not domain.contains("0.5") and not domain.contains(True)


@settings(max_examples=30)
@given(st.dictionaries(st.from_regex(r"[a-c]{1,2}(\.[a-c]{1,2}){0,2}", fullmatch=True), st.integers(), max_size=4))
def test_nested_keeps_every_value_that_has_a_place(flat):
    if any(a != b and b.startswith(f"{a}.") for a in flat for b in flat):
        return  # a value and a section at one place
    tree = nested(flat)
    for key, value in flat.items():
        node = tree
        for part in key.split("."):
            node = node[part]
        assert node == value


def test_options_know_true_from_one():
    assert Options("choice", (1, 2)).contains(1) and not Options("choice", (1, 2)).contains(True)


def test_cases_are_settings_that_go_together():
    tree = {
        "model": {"name": {"grid": ["small_cnn", "small_resnet"]}},
        "epochs": 2,
        "optimizer": {"lr": 0.1},
        "sparsity": {"estimator": "mask", "p0": {"grid": [0.5, 0.25], "when": {"case": "large"}}},
    }
    cases = {"small": {"data.image_size": 8}, "large": {"data": {"image_size": 16}, "epochs": 4, "optimizer.lr": 0.01}}
    space = parse_space(tree, "demo.yaml", cases)
    points = list(space.grid_points())
    assert len(points) == 2 * (1 + 2)
    found = [check_config(space.config(point), "demo", "config") for point in points]
    assert {(c.data.image_size, c.epochs, c.optimizer.lr) for c in found} == {(8, 2, 0.1), (16, 4, 0.01)}
    assert {c.sparsity.p0 for c in found if c.epochs == 2} == {1.0}
    assert space.config(space.point({"case": "large"}))["epochs"] == 4
    assert "case" not in space.config(points[0])


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        ({"epochs": 3}, "cases.one.epochs: is searched as config.epochs; a case fixes what is not searched"),
        ({"sparsity": {"p0": 0.5}}, "cases.one.sparsity.p0: is searched as config.sparsity.p0"),
        ({"optimizer.rate": 1}, "config.optimizer.rate: unknown key"),
        ({"data.batch_size": 0}, "config.data.batch_size: found 0"),
    ],
)
def test_impossible_cases(case, problem):
    tree = {"epochs": {"choice": [2, 4]}, "sparsity": {"estimator": "mask", "p0": {"uniform": [0.1, 1.0]}}}
    with pytest.raises(InputError) as error:
        parse_space(tree, "demo.yaml", {"one": case})
    assert any(problem in line for line in error.value.problems), error.value.problems


def test_active_names_what_means_something_and_hears_nothing_else():
    space = space_of(
        schedule={"choice": ["constant", "linear"]}, k={"uniform": [0.1, 0.2], "when": {"schedule": ["linear"]}}
    )
    assert space.active({"sparsity.schedule": "linear"}) == ["sparsity.schedule", "epochs", "sparsity.k"]
    assert space.active({"sparsity.schedule": "constant", "sparsity.k": 0.1}) == ["sparsity.schedule", "epochs"]
    assert space.active({}) == ["sparsity.schedule", "epochs"]
