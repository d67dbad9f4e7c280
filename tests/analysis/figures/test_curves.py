"""Training curves, keep fractions, and which trials they draw."""

import math

import pandas as pd
import pytest

from analysis.figures import keep_fractions_info, plot_keep_fractions, plot_training_curves, training_curves_info
from analysis.figures.chosen import chosen_trials
from sbp_tune.errors import InputError
from sbp_tune.study.results import METRICS

NAN = math.nan


def with_epochs(study, *rows):
    """rows: trial, epoch, and metrics by name."""
    frame = pd.DataFrame([{"trial": trial, "epoch": epoch, **metrics} for trial, epoch, metrics in rows])
    epochs = frame.reindex(columns=["trial", *METRICS]).astype(dict.fromkeys(METRICS, float))
    object.__setattr__(study, "epochs", epochs)
    return study


@pytest.fixture
def study(build):
    base = build.study(
        build.control(0.9, 2.0),
        build.trial("grid", val_accuracy=0.8, kwh=1.0),
        build.trial("mask", val_accuracy=0.1, kwh=3.0),
    )
    return with_epochs(
        base,
        (1, 2, {"loss": 0.5, "val_accuracy": 0.8, "kwh": 1.0, "train_time_s": 3600.0}),
        (1, 1, {"loss": 1.0, "val_accuracy": 0.5, "kwh": 0.4, "train_time_s": 1200.0}),
        (0, 1, {"loss": 0.9, "val_accuracy": 0.9, "kwh": NAN, "train_time_s": 1800.0}),
        (2, 1, {"loss": NAN, "val_accuracy": 0.1, "kwh": 3.0, "train_time_s": 0.0}),
    )


def test_curves_by_hand(study):
    info = training_curves_info(study, [1, 0, 2])
    assert info.estimators == {0: "dense", 2: "mask", 1: "grid"}  # the order of every legend
    grid = info.curves[info.curves["trial"] == 1]
    assert grid["epoch"].tolist() == [1, 2]
    assert grid["power_w"].tolist() == pytest.approx([1200, 900])  # 0.4 kWh in 20 min, 0.6 in 40
    assert math.isnan(info.curves["power_w"][info.curves["trial"] == 0].item())  # energy not recorded
    assert math.isnan(info.curves["power_w"][info.curves["trial"] == 2].item())  # in no time


def test_curves_are_those_of_the_front_and_the_controls(study):
    assert list(training_curves_info(study).estimators) == [0, 1]


def test_trials_without_an_epoch_have_no_curve(build, study):
    assert training_curves_info(build.study(build.sparse(0.5, 1.0))).curves.empty
    assert training_curves_info(build.study()).estimators == {}
    assert "No trial to draw" in plot_training_curves(build.study()).layout.annotations[0].text


def test_an_unknown_trial_is_named(study, build):
    with pytest.raises(InputError, match="trials: found 7, 9; possible: 0 to 2"):
        training_curves_info(study, [1, 7, 9])
    with pytest.raises(InputError, match="possible: none"):
        keep_fractions_info(build.study(), [0])


def test_chosen_trials_are_in_the_order_asked_for(study):
    assert chosen_trials(study, [2, 0]).index.tolist() == [2, 0]
    assert chosen_trials(study, []).empty


def test_a_long_front_is_thinned_and_keeps_its_ends(build):
    trials = [build.sparse(0.5 + place / 100, 1.0 + place) for place in range(30)]
    dense = [build.control(0.4 + place / 1000, 50.0) for place in range(5)]
    chosen = chosen_trials(build.study(*trials, *dense), controls=3)["trial"].tolist()
    assert len(chosen) == 8
    assert chosen[:3] == [34, 33, 32]  # the most accurate controls
    assert (chosen[3], chosen[-1]) == (0, 29)


def test_the_figure_has_a_line_a_trial_in_each_panel(study):
    figure = plot_training_curves(study, [0, 1])
    assert [trace.name for trace in figure.data if trace.showlegend] == ["0 dense control", "1 grid"]
    assert len(figure.data) == 8
    assert figure.data[0].line.dash == "dash"


def test_planned_and_recorded_keep_fractions(build):
    config = {"epochs": 4, "sparsity__schedule": "linear", "sparsity__p0": 0.5, "sparsity__k": 0.1}
    study = with_epochs(
        build.study(build.trial("grid", val_accuracy=0.9, kwh=1.0, **config)),
        (0, 1, {"keep_fraction": 0.5}),
        (0, 2, {"keep_fraction": 0.25}),
    )
    info = keep_fractions_info(study)
    assert info.epochs["epoch"].tolist() == [0, 1, 2, 3]
    assert info.epochs["planned"].tolist() == pytest.approx([0.5, 0.4, 0.3, 0.2])
    assert info.epochs["recorded"].fillna(-1).tolist() == [0.5, 0.25, -1, -1]
    assert info.layers["keep"].tolist() == pytest.approx([0.35, 0.35])
    drawn = plot_keep_fractions(study).data
    assert [list(trace.x) for trace in drawn] == [[0, 1, 2, 3], [1], [0, 1]]  # one epoch was not as planned


def test_adaptive_schedules_are_only_known_as_recorded(build):
    config = {"epochs": 3, "sparsity__schedule": "adaptive", "sparsity__p0": 0.5, "sparsity__warmup_dense": 0.34}
    info = keep_fractions_info(build.study(build.trial("mask", val_accuracy=0.9, kwh=1.0, **config)))
    assert info.epochs["planned"].fillna(-1).tolist() == [1.0, 0.5, -1.0]


def test_layers_of_a_ramp_are_those_of_the_network(build):
    config = {"epochs": 2, "sparsity__p0": 0.5, "sparsity__layers__profile": "ramp", "sparsity__layers__slope": 1.0}
    model = {"model__name": "small_cnn", "data__image_size": 8}
    info = keep_fractions_info(build.study(build.trial("batch_slice", val_accuracy=0.9, kwh=1.0, **config, **model)))
    assert info.layers["layer"].is_unique and (info.layers["layer"] != "").all()
    assert info.layers["keep"].is_monotonic_increasing
    assert info.layers["keep"].max() < 1


def test_dense_trials_have_no_keep_fractions_of_their_own(build):
    study = build.study(build.control(0.9, 1.0, epochs=2))
    assert keep_fractions_info(study).estimators == {}
    assert keep_fractions_info(study, [0]).epochs["planned"].tolist() == [1, 1]


def test_a_config_that_trains_nothing_is_one_line(build):
    study = build.study(build.trial("grid", val_accuracy=0.9, kwh=1.0, sparsity__p0=7.0))
    with pytest.raises(InputError, match=r"trial 0: sparsity\.p0: found 7\.0"):
        keep_fractions_info(study)
