from __future__ import annotations

import functools
import warnings

import moocore
import numpy as np
import optuna
import pytest
import torch

from sbp_tune.study.domains import Range
from sbp_tune.study.encoding import Encoding
from sbp_tune.study.gp_sampler import ConditionalGPSampler, ExpectedGain, _boxes
from sbp_tune.study.space import Parameter, Space
from sbp_tune.study.space_parser import parse_space
from sbp_tune.study.surrogate import Surrogate

SQUARE = Space(tuple(Parameter(name, Range("uniform", 0.0, 1.0)) for name in "xy"), {})
CONDITIONAL = parse_space(
    {
        "epochs": {"choice": [10, 20, 40]},
        "sparsity": {
            "estimator": {"choice": ["mask", "grid", "dense"]},
            "schedule": {"choice": ["constant", "linear"]},
            "p0": {"uniform": [0.1, 1.0]},
            "k": {"log_uniform": [0.01, 0.1], "when": {"schedule": ["linear"]}},
        },
    },
    "demo.yaml",
)


def study_of(space, seed=0, directions=("maximize", "minimize"), startup=6):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(directions=directions, sampler=ConditionalGPSampler(space, seed, startup))


def search(study, space, objectives, trials, pending=0):
    """Trials one after the other, each told when so many more have been asked for."""
    waiting, points = [], []
    for _ in range(trials):
        trial = study.ask()
        point = space.suggest(trial)
        assert point == trial.params  # asked for what the model proposed, and for nothing else
        points.append(point)
        waiting.append(trial)
        if len(waiting) > pending:
            ended = waiting.pop(0)
            study.tell(ended, objectives(ended.params))
    return points


def response(point):
    p = 1.0 if point["sparsity.estimator"] == "dense" else point["sparsity.p0"] - 5 * point.get("sparsity.k", 0.0)
    return 1 - 1 / point["epochs"] - 0.1 * (1 - p) ** 2, point["epochs"] * (2 + p)


POINTS = np.random.default_rng(0).random((12, 2))


def models_of(kind):
    """Models of a dozen points of a square with noisy objectives, to be maximised."""
    noise = 0.1 * np.random.default_rng(1).standard_normal((12, 2))
    first = np.sin(5 * POINTS[:, 0]) + POINTS[:, 1] + noise[:, 0]
    second = np.cos(4 * POINTS[:, 1]) - POINTS[:, 0] + noise[:, 1]
    if kind == "cost":  # a product, positive, to be minimised
        second = -np.exp(3 * POINTS[:, 0] + 2 * POINTS[:, 1] + noise[:, 1])
    values = np.stack([first, second], axis=1)[:, : 1 if kind == "single" else 2]
    models = [Surrogate(POINTS, column, np.array([False, False])) for column in values.T]
    assert [model.is_log for model in models] == [False, kind == "cost"][: len(models)]
    return models


@pytest.mark.parametrize("kind", ["single", "two", "cost"])
def test_the_expected_gain_is_the_mean_of_sampled_gains(kind):
    models, random = models_of(kind), np.random.default_rng(1)
    gain = ExpectedGain(models, POINTS, Encoding(SQUARE), samples=256)
    queries = random.random((3, 2))
    found = np.exp(gain.eval_acqf_no_grad(queries))
    assert np.exp(gain.eval_acqf_no_grad(queries[0])) == pytest.approx(found[0])  # one point, without a batch
    for query, expected in zip(queries, found, strict=True):
        gains = []
        for values in np.stack([sampled(model, [*POINTS, query], random) for model in models], axis=-1):
            volume = functools.partial(moocore.hypervolume, ref=_boxes(values[:-1])[0].min(axis=0), maximise=True)
            gains.append(volume(values) - volume(values[:-1]))
        error = np.std(gains) / np.sqrt(len(gains))
        assert expected == pytest.approx(np.mean(gains), abs=6 * error + 1e-6)  # both are sampled


def sampled(model, points, random):
    """Values [200, n] without noise that a model thinks possible at points [n, 2]."""
    with torch.no_grad():
        mean, covariance = model.model.posterior(torch.from_numpy(np.array(points)), joint=True)
    drawn = random.multivariate_normal(mean.numpy(), covariance.numpy(), size=200, method="eigh")
    drawn = drawn * model._deviation + model._mean
    return -np.exp(drawn) if model.is_log else drawn


@pytest.mark.parametrize("kind", ["single", "two", "cost"])
def test_the_gain_has_a_gradient_everywhere_even_on_the_data(kind):
    gain = ExpectedGain(models_of(kind), POINTS, Encoding(SQUARE))
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 15), np.linspace(0, 1, 15)), axis=-1).reshape(-1, 2)
    x = torch.from_numpy(np.vstack([grid, POINTS])).requires_grad_(True)
    value = gain.eval_acqf(x)
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(x.grad).all()


def test_what_is_known_promises_little():
    """Around a point that ran, its gain is smaller than the models' doubt: both would be better together."""
    models = models_of("two")
    gain = ExpectedGain(models, POINTS, Encoding(SQUARE), samples=64)
    on, off = gain.eval_acqf_no_grad(POINTS), gain.eval_acqf_no_grad(np.random.default_rng(2).random((200, 2)))
    assert on.max() < off.max() - 1


def test_a_run_that_diverged_does_not_stretch_the_reference():
    values = np.vstack([np.random.default_rng(0).random((20, 2)), [[-50.0, -80.0]]])
    lower, _ = _boxes(values)
    assert (lower.min(axis=0) > -4 - 0.1 * values.std(axis=0)).all() and (lower.min(axis=0) < 0).all()


def test_the_first_trials_are_spread_out_and_later_ones_better():
    def objectives(point):
        return 1 - (point["x"] - 0.3) ** 2 - (point["y"] - 0.6) ** 2, (point["x"] - 0.4) ** 2 + (point["y"] - 0.6) ** 2

    study = study_of(SQUARE, startup=8)
    points = search(study, SQUARE, objectives, 13)
    assert {(int(2 * p["x"]), int(2 * p["y"])) for p in points[:8]} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    late = np.array([[p["x"], p["y"]] for p in points[-3:]])
    assert np.abs(late[:, 1] - 0.6).mean() < 0.15 and 0.2 < late[:, 0].mean() < 0.5


def test_it_proposes_what_means_something_and_learns_from_baselines_outside_the_space():
    study = study_of(CONDITIONAL)
    study.enqueue_trial({"epochs": 40})  # an estimator that is not in the space
    study.enqueue_trial({"epochs": 40, "sparsity.estimator": "dense"})
    trial = study.ask()
    trial.suggest_categorical("epochs", [10, 20, 40])
    study.tell(trial, (0.975, 120.0))
    points = search(study, CONDITIONAL, response, 12, pending=2)
    assert points[0] == {"epochs": 40, "sparsity.estimator": "dense"}
    for point in points:
        assert ("sparsity.k" in point) == (point.get("sparsity.schedule") == "linear")
        assert ("sparsity.p0" in point) == (point["sparsity.estimator"] != "dense")


def test_one_seed_one_search():
    first, second, other = (search(study_of(CONDITIONAL, seed), CONDITIONAL, response, 8) for seed in (1, 1, 2))
    assert first == second != other


def test_failed_and_pruned_trials_are_not_learned_from():
    study = study_of(SQUARE, startup=4)
    for index in range(12):
        trial = study.ask()
        SQUARE.suggest(trial)
        state = [optuna.trial.TrialState.FAIL, optuna.trial.TrialState.PRUNED][index % 2]
        study.tell(trial, state=state)
    assert study.sampler._models is None
    search(study, SQUARE, lambda point: (point["x"], point["y"]), 6)
    assert len(study.sampler._models[0].model._X_train) == 5


@pytest.mark.slow
def test_trials_in_flight_are_not_proposed_again():
    study = study_of(SQUARE)
    search(study, SQUARE, lambda p: (-((p["x"] - 0.2) ** 2 + p["y"] ** 2), (p["x"] - 0.8) ** 2 + p["y"] ** 2), 8)
    points = []
    for _ in range(3):
        trial = study.ask()
        points.append(list(SQUARE.suggest(trial).values()))
    distances = [np.abs(np.subtract(a, b)).max() for i, a in enumerate(points) for b in points[:i]]
    assert min(distances) > 0.02


@pytest.mark.slow
def test_constraints_keep_it_where_they_are_met():
    study = study_of(SQUARE, startup=8)
    points = []
    for _ in range(14):
        trial = study.ask()
        point = SQUARE.suggest(trial)
        points.append(point["x"])
        trial.set_constraint("x below 0.4", point["x"] - 0.4)
        study.tell(trial, (point["x"], point["y"]))  # more x is better, but forbidden
    assert np.mean(np.array(points[9:]) < 0.45) >= 0.6


def test_single_objectives_and_three_of_them():
    search(study_of(SQUARE, directions=("minimize",)), SQUARE, lambda p: (p["x"] - 0.2) ** 2 + p["y"], 8)
    three = study_of(SQUARE, directions=("minimize",) * 3)
    search(three, SQUARE, lambda p: (p["x"], p["y"], (1 - p["x"]) * (1 - p["y"])), 8, pending=1)
    assert len(three.best_trials) > 1


def test_the_same_values_everywhere_are_no_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search(study_of(SQUARE, startup=3), SQUARE, lambda point: (0.5, 1.0), 6)
