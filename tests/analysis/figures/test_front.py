import math

import pytest

from analysis.figures import pareto_front_info, plot_front
from analysis.figures.hover import hover_lines
from sbp_tune.errors import InputError

NAN = math.nan


@pytest.fixture
def study(build):
    return build.study(
        build.control(0.80, 1e-5),
        build.control(0.90, 3e-5),
        build.control(0.70, 2e-5),  # a control that another control dominates
        build.sparse(0.88, 2e-5),
        build.sparse(0.60, 2e-5),
        build.sparse(0.99, 1e-6, state="stopped"),
        build.sparse(0.99, 1e-6, state="running"),
        build.trial(state="failed", error="boom"),
        build.sparse(NAN, 1e-5),
    )


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def test_pareto_info_of_a_small_study(study):
    info = pareto_front_info(study)
    assert info.directions == ("min", "max")
    assert info.points["trial"].tolist() == [0, 1, 2, 3, 4, 5]
    assert info.points["role"].tolist() == ["control"] * 3 + ["trial", "trial", "stopped"]
    assert info.points["on_front"].tolist() == [True, True, False, True, False, False]
    assert info.points["on_curve"].tolist() == [True, True, False, False, False, False]
    assert info.knee == 3
    assert info.ideal == (1e-5, 0.90)


@pytest.mark.parametrize("state", ["failed", "running", "stopped"])
def test_pareto_info_without_a_finished_trial(build, state):
    study = build.study(build.trial(state=state, val_accuracy=0.5, kwh=1.0))
    info = pareto_front_info(study)
    assert (info.knee, info.ideal) == (None, None)
    assert not info.points["on_front"].any()
    assert plot_front(study)


def test_pareto_info_of_no_trial_and_of_one(build):
    assert pareto_front_info(build.study()).points.empty
    info = pareto_front_info(build.study(build.sparse(0.5, 1.0)))
    assert (info.knee, info.points["on_front"].tolist()) == (0, [True])


def test_pareto_info_keeps_duplicates(build):
    info = pareto_front_info(build.study(build.sparse(0.5, 1.0), build.sparse(0.5, 1.0), build.sparse(0.5, 2.0)))
    assert info.points["on_front"].tolist() == [True, True, False]


def test_directions_follow_the_study_and_the_metric(build):
    study = build.study(build.sparse(0.5, 1.0), objectives={"loss": "max"})
    assert pareto_front_info(study, x="train_time_s", y="f1").directions == ("min", "max")
    assert pareto_front_info(study, x="kwh", y="loss").directions == ("min", "max")


def test_an_unknown_metric_is_named(study):
    with pytest.raises(InputError, match=r"kWh: not a metric; possible: .*val_accuracy.*kwh"):
        pareto_front_info(study, x="kWh")
    with pytest.raises(InputError, match="kWh: not a metric"):
        plot_front(study, x="kWh")


def test_hover_shows_what_varies_and_what_has_an_effect(build):
    common = {"device": "cpu", "sparsity__p0": 0.5, "optimizer__lr": 0.1}
    study = build.study(
        build.control(0.8, 1e-5, epochs=5, kwh_cpu=8e-6, kwh_measured_share=0.5, **common),
        build.sparse(0.9, 2e-5, epochs=25, **common),
        build.trial("dense", val_accuracy=0.9, kwh=2e-5),
    )
    dense, sparse, without = hover_lines(study)
    assert dense.split("\n") == [
        "trial 0, complete",
        "estimator: dense",
        "epochs: 5",
        "optimizer.lr: 0.1",  # varies: one trial has none
        "val_accuracy: 80.00 %",
        "kwh: 10.0 mWh",
        "kwh_cpu: 8.00 mWh",
        "kwh_measured_share: 50 %",
    ]
    assert "sparsity.p0: 0.5" in sparse  # no effect on a dense run
    assert "epochs: 25" in sparse
    assert "epochs" not in without


def test_hover_of_some_trials_and_other_metrics(build):
    study = build.study(build.sparse(0.8, 1e-5, tflop=2.0), build.sparse(0.9, 2e-5, tflop=3.0))
    chosen = hover_lines(study, ["tflop"], study.trials.index[[1]])
    assert chosen.index.tolist() == [1]
    assert "tflop: 3" in chosen[1].split("\n")
    assert hover_lines(build.study()).empty


def test_front_is_drawn_in_readable_units(study):
    figure = plot_front(study)
    assert figure.layout.xaxis.title.text == "Energy (mWh)"
    assert figure.layout.yaxis.title.text == "Validation accuracy (%)"
    drawn = traces(figure)
    assert list(drawn["Pareto front"]["x"]) == pytest.approx([10, 20, 30])
    assert list(drawn["Pareto front"]["y"]) == pytest.approx([80, 88, 90])
    assert drawn["Pareto front"]["line"]["shape"] == "hv"
    assert list(drawn["dense control curve"]["x"]) == pytest.approx([10, 30])
    assert list(drawn["dense control"]["x"]) == pytest.approx([10, 30, 20])
    assert list(drawn["stopped early"]["x"]) == pytest.approx([1])
    assert (list(drawn["knee"]["x"]), list(drawn["ideal"]["x"])) == ([pytest.approx(20)], [pytest.approx(10)])
    assert list(drawn["batch_slice"]["customdata"]) == [3, 4]


def test_stopped_trials_do_not_squeeze_the_complete_ones(build):
    complete = [build.sparse(0.90, 1.0), build.sparse(0.92, 2.0)]
    figure = plot_front(build.study(*complete, build.sparse(0.10, 0.1, state="stopped")))
    low, high = figure.layout.yaxis.range
    assert 80 < low < 90 and 92 < high < 100
    assert "stopped early (1 outside)" in traces(figure)
    assert plot_front(build.study(*complete, build.sparse(0.91, 0.1, state="stopped"))).layout.yaxis.range is None


def test_buttons_change_what_the_x_axis_costs(build):
    study = build.study(
        build.control(0.8, 1.0, co2_kg=3.0, tflop=5.0),
        build.sparse(0.7, 2.0, co2_kg=1.0, tflop=7.0),
        build.sparse(0.9, 3.0, tflop=9.0),  # no CO2: not there, and not on that front
    )
    figure = plot_front(study)
    labels = {button.label: button.args for button in figure.layout.updatemenus[0].buttons}
    assert list(labels) == ["energy", "CO₂", "FLOPs"]  # no time was recorded
    names = [trace.name for trace in figure.data]
    data, layout = labels["CO₂"]
    assert layout["xaxis.title.text"] == "CO₂ equivalent (kg)"
    x, y = (dict(zip(names, data[axis], strict=True)) for axis in ("x", "y"))
    assert (x["batch_slice"], y["batch_slice"]) == ([1.0, None], [70.0, None])
    assert (x["Pareto front"], x["knee"]) == ([1.0, 3.0], [3.0])
    shown = dict(zip(names, labels["energy"][0]["x"], strict=True))
    assert {name: list(trace.x) for name, trace in traces(figure).items()} == shown


def test_only_the_metric_asked_for_has_no_buttons(build):
    assert not plot_front(build.study(build.sparse(0.7, 2.0, f1=0.5)), x="f1").layout.updatemenus


def test_many_points_are_drawn_by_the_gpu(build):
    few, many = (plot_front(build.study(*[build.sparse(0.5, 1.0)] * count)) for count in (3, 2000))
    assert (traces(few)["batch_slice"].type, traces(many)["batch_slice"].type) == ("scatter", "scattergl")
