import math

import pytest

from analysis.figures import plot_strategies, strategies_info

NAN = math.nan


def run(build, estimator, accuracy, kwh, seed=0, **values):
    return build.trial(estimator, val_accuracy=accuracy, kwh=kwh, seed=seed, **values)


def test_mean_and_standard_error_over_seeds(build):
    model = {"model__name": "resnet18", "data__name": "cifar10"}
    linear = {"sparsity__schedule": "linear", **model}
    study = build.study(
        run(build, "mask", 0.80, 1.0, seed=0, sparsity__p0=0.5, **linear),
        run(build, "mask", 0.90, 3.0, seed=1, sparsity__p0=0.5, **linear),
        run(build, "mask", 0.84, 9.0, seed=0, sparsity__p0=0.1, **linear),  # of another config, less accurate
        run(build, "mask", 0.99, 9.0, state="stopped", **linear),
        run(build, "dense", 0.70, 4.0, **model),
    )
    info = strategies_info(study)
    assert info.accuracy == "val_accuracy"
    assert info.bars["strategy"].tolist() == ["dense", "mask linear"]  # one order everywhere
    mask = info.bars.iloc[1]
    assert (mask["model"], mask["seeds"]) == ("resnet18 cifar10", 2)
    assert (mask["val_accuracy"], mask["kwh"]) == (pytest.approx(0.85), 2.0)
    assert (mask["val_accuracy_se"], mask["kwh_se"]) == (pytest.approx(0.05), 1.0)
    assert math.isnan(info.bars["kwh_se"][0]) and math.isnan(mask["train_time_s"])


def test_ties_go_to_the_cheaper_and_models_stay_apart(build):
    one = build.study(run(build, "grid", 0.9, 2.0, epochs=1), run(build, "grid", 0.9, 1.0, epochs=2), name="one")
    two = build.study(run(build, "grid", 0.5, 1.0, model__name="vgg19"), name="two")
    bars = strategies_info(one, two).bars
    assert bars["model"].tolist() == ["one", "vgg19"]  # a trainable without a model goes by its study
    assert bars["kwh"].tolist() == [1.0, 1.0]


def test_tested_trials_are_shown_by_their_test_accuracy(build):
    study = build.study(run(build, "grid", 0.9, 2.0, test_accuracy=0.8), run(build, "mask", 0.7, 2.0))
    assert strategies_info(study).accuracy == "test_accuracy"
    assert plot_strategies(study).layout.yaxis.title.text == "Test accuracy (%)"


def test_nothing_finished(build):
    for trials in ([], [run(build, "grid", NAN, 1.0)], [run(build, "grid", 0.5, 1.0, state="running")]):
        assert strategies_info(build.study(*trials)).bars.empty
    assert "No trial" in plot_strategies(build.study()).layout.annotations[0].text


def test_the_figure_leaves_out_what_was_not_recorded(build):
    figure = plot_strategies(build.study(run(build, "grid", 0.9, NAN, sparsity__schedule="linear")))
    assert "yaxis2" not in figure.to_plotly_json()["layout"]  # neither energy nor time
    assert [trace.name for trace in figure.data if trace.name] == ["grid"]
    assert "stripes linear" in figure.layout.title.text.replace("<br>", " ")
