import math

import pytest

from analysis.figures import flop_saving_info, plot_flop_saving


def dense(build, tflop, kwh, epochs, **values):
    return build.control(0.9, kwh, tflop=tflop, epoch=epochs, **values)


def sparse(build, estimator, tflop, kwh, epochs, **values):
    return build.trial(estimator, val_accuracy=0.9, tflop=tflop, kwh=kwh, epoch=epochs, **values)


def test_savings_per_epoch_by_hand(build):
    study = build.study(
        dense(build, 100.0, 10.0, 10.0),
        dense(build, 50.0, 6.0, 5.0),  # 1.2 kWh an epoch: the mean of the controls is 1.1
        sparse(build, "grid", 80.0, 7.7, 10.0),
        sparse(build, "layer", 30.0, 5.225, 5.0),
        sparse(build, "mask", 100.0, 13.2, 10.0),
    )
    info = flop_saving_info(study)
    assert info.trials["flop_saving"].tolist() == pytest.approx([0.2, 0.4, 0.0])
    assert info.trials["energy_saving"].tolist() == pytest.approx([0.3, 0.05, -0.2])
    assert info.estimators["flagged"].to_dict() == {"mask": False, "grid": False, "layer": True}
    assert info.estimators["trials"].tolist() == [1, 1, 1]
    assert info.without_dense == 0


def test_half_is_not_under_half(build):
    study = build.study(dense(build, 8.0, 8.0, 1.0), sparse(build, "grid", 4.0, 6.0, 1.0))
    assert not flop_saving_info(study).estimators["flagged"].any()


def test_an_estimator_is_judged_by_its_mean(build):
    trials = [sparse(build, "grid", 4.0, kwh, 1.0) for kwh in (4.0, 8.0)]
    info = flop_saving_info(build.study(dense(build, 8.0, 8.0, 1.0), *trials))
    assert info.estimators["energy_saving"].tolist() == [0.25]
    assert not info.estimators["flagged"].any()


def test_only_controls_of_the_same_work_are_compared(build):
    study = build.study(
        dense(build, 10.0, 1.0, 1.0, device="T4", data__batch_size=32, optimizer__lr=0.1),
        sparse(build, "grid", 5.0, 0.5, 1.0, device="T4", data__batch_size=32, optimizer__lr=0.3),
        sparse(build, "grid", 5.0, 0.5, 1.0, device="T4", data__batch_size=64, optimizer__lr=0.1),
        sparse(build, "grid", 5.0, 0.5, 1.0, device="H200", data__batch_size=32, optimizer__lr=0.1),
    )
    info = flop_saving_info(study)
    assert (info.trials["trial"].tolist(), info.without_dense) == ([1], 2)


def test_what_was_not_recorded_is_left_out(build):
    study = build.study(
        dense(build, 10.0, 1.0, 1.0),
        sparse(build, "grid", math.nan, 0.5, 1.0),
        sparse(build, "grid", 5.0, math.nan, 1.0),
        sparse(build, "grid", 5.0, 0.5, 1.0, state="stopped"),
    )
    assert flop_saving_info(study).trials.empty
    assert flop_saving_info(build.study()).estimators.empty


def test_the_figure_names_what_it_flags(build):
    study = build.study(dense(build, 8.0, 8.0, 1.0), sparse(build, "grid", 4.0, 7.0, 1.0))
    figure = plot_flop_saving(study)
    assert "grid (under half)" in [trace.name for trace in figure.data]
    assert "grid" in figure.layout.title.text
