"""What the search varied: slices, parallel coordinates and importance."""

import math

import numpy as np
import pytest

from analysis.figures import (
    importance,
    importance_info,
    parallel_info,
    plot_importance,
    plot_parallel,
    plot_slices,
    slices_info,
)
from analysis.figures.searched import searched_info, short_names
from sbp_tune.errors import InputError

NAN = math.nan
SPACE = {
    "epochs": {"int": [1, 50]},
    "sparsity": {
        "estimator": {"choice": ["mask", "grid"]},
        "schedule": {"choice": ["constant", "linear"]},
        "p0": {"uniform": [0.1, 1.0]},
        "k": {"log_uniform": [0.001, 0.1], "when": {"schedule": "linear"}},
    },
}


@pytest.fixture
def study(build):
    study = build.study(
        build.control(0.95, 4.0, epochs=10, sparsity__p0=1.0, sparsity__schedule="constant"),
        build.trial("grid", val_accuracy=0.9, kwh=1.0, epochs=10, sparsity__p0=0.5, sparsity__schedule="constant"),
        build.trial(
            "mask",
            val_accuracy=0.8,
            kwh=2.0,
            epochs=20,
            sparsity__p0=0.3,
            sparsity__schedule="linear",
            sparsity__k=0.01,
        ),
        build.trial("mask", state="stopped", val_accuracy=0.1, kwh=0.1, epochs=50, sparsity__p0=0.7),
    )
    study.study["config"] = SPACE
    return study


def test_searched_values_of_complete_trials(study):
    info = searched_info(study)
    assert info.scales == {
        "sparsity.estimator": "category",
        "sparsity.schedule": "category",
        "sparsity.p0": "linear",
        "epochs": "linear",
    }
    assert info.values["sparsity.p0"].fillna(-1).tolist() == [-1, 0.5, 0.3]  # no effect on a dense run
    assert info.values["sparsity.schedule"].fillna("–").tolist() == ["–", "constant", "linear"]
    assert searched_info(study, ["sparsity.k"]).scales == {"sparsity.k": "log"}


def test_a_key_nobody_has_is_named(study):
    for info in (slices_info, parallel_info):
        with pytest.raises(InputError, match=r"sparsity\.q: not a key of any trial; possible: .*sparsity\.p0"):
            info(study, keys=["sparsity.q"])
    with pytest.raises(InputError, match="accuracy: not a metric"):
        slices_info(study, y="accuracy")


def test_truth_values_and_mixed_text_are_categories(build):
    study = build.study(*(build.sparse(0.5, 1.0, flag=flag, size=size) for flag, size in ((True, "a"), (False, 1))))
    info = searched_info(study)
    assert set(info.scales.values()) == {"category"}
    assert info.values["flag"].tolist() == ["True", "False"]


def test_short_names():
    assert short_names(["sparsity.p0", "data.name", "model.name"]) == {
        "sparsity.p0": "p0",
        "data.name": "data.name",
        "model.name": "model.name",
    }


def test_slices_begin_with_the_schedule(study):
    info = slices_info(study)
    assert list(info.scales) == ["sparsity.p0", "sparsity.schedule"]
    assert info.points["y"].tolist() == [0.95, 0.9, 0.8]
    figure = plot_slices(study, "kwh")
    assert [axis.title.text for axis in (figure.layout.xaxis, figure.layout.xaxis2)] == ["p0", "schedule"]
    assert sorted({trace.name for trace in figure.data}) == ["grid", "mask"]  # a dense run has neither
    assert sum(bool(trace.showlegend) for trace in figure.data) == 2


def test_slices_of_nothing(build):
    assert "No trial has finished." in plot_slices(build.study()).layout.annotations[0].text
    same = build.study(*[build.sparse(0.5, 1.0, sparsity__p0=0.5)] * 2)
    assert slices_info(same).scales == {}
    assert "differs" in plot_slices(same).layout.annotations[0].text.replace("<br>", " ")


def test_parallel_places_by_hand(study):
    info = parallel_info(study)
    assert list(info.values) == [
        *("trial", "val_accuracy", "kwh"),
        *("sparsity.estimator", "sparsity.p0", "sparsity.schedule", "epochs"),
    ]
    assert info.values["trial"].tolist() == [0, 1, 2]
    drawn = plot_parallel(study).data
    line = next(trace for trace in drawn if 2 in trace.customdata)
    # worst accuracy, a third of the way in kWh, mask of dense, mask and grid, least p0, linear, most epochs
    assert list(line.x)[:6] == pytest.approx([0, 1 / 3, 0.5, 0, 1, 1], abs=1e-4)
    dense = next(trace for trace in drawn if 0 in trace.customdata)
    assert list(dense.x)[3] < 0  # p0 means nothing to it
    assert list(dense.y)[:6] == [0, -1, -2, -3, -4, -5]


def test_parallel_needs_every_objective(build):
    study = build.study(build.sparse(0.5, NAN), build.sparse(NAN, 1.0))
    assert parallel_info(study).values.empty
    one = build.study(build.sparse(0.5, 1.0))
    assert parallel_info(one).values["trial"].tolist() == [0]
    assert list(plot_parallel(one).data[0].x)[:2] == [0, 0]


def random_study(build, count, seed=0, kind="search"):
    """Accuracy hangs on p0 alone, energy on the epochs alone."""
    rng = np.random.default_rng(seed)
    trials = []
    for _ in range(count):
        epochs, p0 = int(rng.integers(1, 51)), rng.uniform(0.1, 1.0)
        config = {"epochs": epochs, "sparsity__p0": p0, "sparsity__schedule": rng.choice(["constant", "linear"]).item()}
        if config["sparsity__schedule"] == "linear":
            config["sparsity__k"] = 10 ** rng.uniform(-3, -1)
        name = rng.choice(["mask", "grid"]).item()
        trials.append(build.trial(name, kind=kind, val_accuracy=0.5 + p0 / 3, kwh=epochs / 10, **config))
    study = build.study(*trials)
    study.study["config"] = SPACE
    return study


@pytest.mark.parametrize("evaluator", ["ped_anova", "fanova"])
def test_importance_finds_what_decides(build, evaluator):
    info = importance_info(random_study(build, 60), evaluator)
    assert info.importance.sum().tolist() == pytest.approx([1, 1])
    assert info.importance.idxmax().to_dict() == {"val_accuracy": "sparsity.p0", "kwh": "epochs"}
    assert info.importance["val_accuracy"].max() > 0.5
    assert math.isnan(info.importance.loc["sparsity.k", "kwh"]) == (evaluator == "fanova")  # conditional
    assert info.trials == {"val_accuracy": 60, "kwh": 60}


def test_importance_needs_trials_of_the_search(build):
    info = importance_info(random_study(build, 19))
    assert info.importance.empty
    assert info.problem == "Importance needs 20 complete trials that the search proposed; so far: 19."
    assert "so far: 0." in importance_info(random_study(build, 30, kind="baseline")).problem
    assert "varies nothing" in importance_info(build.study(build.sparse(0.5, 1.0))).problem
    assert "so far: 19" in plot_importance(random_study(build, 19)).layout.annotations[0].text.replace("<br>", " ")


def test_importance_of_the_best_five_or_a_tenth(build, monkeypatch):
    assert importance_info(random_study(build, 20)).best == {"val_accuracy": 5, "kwh": 5}
    study = random_study(build, 80)
    assert importance_info(study).best == {"val_accuracy": 8, "kwh": 8}
    monkeypatch.setattr(importance, "MOST_TRIALS", 30)
    assert importance_info(study).trials == {"val_accuracy": 30, "kwh": 30}


def test_importance_of_ties_and_an_unknown_evaluator(build):
    study = random_study(build, 25)
    study.trials["val_accuracy"] = 0.5
    assert importance_info(study).importance["val_accuracy"].sum() == pytest.approx(1)
    with pytest.raises(InputError, match="evaluator: found 'shap'; allowed: ped_anova, fanova"):
        importance_info(study, "shap")


def test_importance_is_of_being_good_not_of_being_bad(build):
    study = random_study(build, 80)
    p0, epochs = study.trials["config.sparsity.p0"], study.trials["config.epochs"]
    # p0 decides who is among the best, the epochs who is among the worst
    study.trials["val_accuracy"] = (0.9 + p0 / 100).where(p0 > 0.8, 0.5 - epochs / 200)
    study.trials["kwh"] = 1 - study.trials["val_accuracy"]
    assert importance_info(study).importance.idxmax().to_dict() == {"val_accuracy": "sparsity.p0", "kwh": "sparsity.p0"}
