import json
import math

import pytest

from analysis.figures import energy_bill_info, pareto_front_info, plot_energy_bill, plot_front
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


@pytest.mark.parametrize("state", ["failed", "running", "stopped"])
def test_pareto_info_without_a_finished_trial(build, state):
    study = build.study(build.trial(state=state, val_accuracy=0.5, kwh=1.0))
    info = pareto_front_info(study)
    assert info.knee is None
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


def test_hover_shows_what_varies_and_what_has_an_effect(build):
    common = {"device": "cpu", "sparsity__p0": 0.5, "optimizer__lr": 0.1}
    study = build.study(
        build.control(0.8, 1e-5, epochs=5, kwh_cpu=8e-6, kwh_measured_share=0.5, **common),
        build.sparse(0.9, 2e-5, epochs=25, **common),
        build.trial("dense", val_accuracy=0.9, kwh=2e-5),
    )
    dense, sparse, without = pareto_front_info(study).points["hover"]
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


def test_front_is_drawn_in_readable_units(study):
    figure = plot_front(study)
    assert figure.layout.xaxis.title.text == "Energy (mWh)"
    assert figure.layout.yaxis.title.text == "Validation accuracy (%)"
    drawn = traces(figure)
    assert list(drawn["Pareto front"]["x"]) == pytest.approx([10, 20, 30])
    assert list(drawn["Pareto front"]["y"]) == pytest.approx([80, 88, 90])
    assert drawn["Pareto front"]["line"]["shape"] == "hv"
    assert list(drawn["dense control curve"]["x"]) == pytest.approx([10, 30])
    assert list(drawn["dense control"]["x"]) == pytest.approx([10, 20, 30])
    assert list(drawn["stopped early"]["x"]) == pytest.approx([1])
    assert list(drawn["knee"]["x"]) == pytest.approx([20])


def test_each_estimator_has_its_own_mark(build):
    names = ["mask", "batch_slice", "grid", "layer", "channel_block", "channel_topk", "branch_drop", "prefix"]
    drawn = traces(plot_front(build.study(*(build.trial(name, val_accuracy=0.5, kwh=1.0) for name in names))))
    assert len({drawn[name]["marker"]["symbol"] for name in names}) == len(names)


def test_markup_in_a_study_stays_text(build):
    evil = "</script><img src=x onerror=alert(1)>%{x}"
    study = build.study(
        build.trial(evil, val_accuracy=0.5, kwh=1.0, data__root=evil),
        build.trial("mask", val_accuracy=0.6, kwh=2.0, data__root="b"),
    )
    for figure in (plot_front(study), plot_energy_bill(study)):
        assert "<img" not in json.dumps(figure.to_plotly_json(), default=str)
    assert "&lt;img" in json.dumps(plot_front(study).to_plotly_json(), default=str)


def test_energy_bill_counts_every_trial_once(build):
    def parts(gpu, cpu, ram):
        sources = {"kwh_gpu_source": "counter", "kwh_cpu_source": "model", "kwh_ram_source": "model"}
        share = gpu / (gpu + cpu + ram)
        return {"kwh_gpu": gpu, "kwh_cpu": cpu, "kwh_ram": ram, "kwh_measured_share": share, **sources}

    study = build.study(
        build.control(0.8, 10.0, co2_kg=1.0, **parts(7.0, 2.0, 1.0)),
        build.sparse(0.9, 10.0, **parts(7.0, 2.0, 1.0)),
        build.sparse(0.7, 10.0, **parts(6.0, 3.0, 1.0)),
        build.sparse(0.7, 5.0, state="stopped", **parts(4.0, 0.5, 0.5)),
        build.sparse(NAN, 1.0, state="failed", **parts(0.6, 0.3, 0.1)),
        build.trial(state="failed"),
        build.sparse(0.1, 2.0, state="running", **parts(1.2, 0.6, 0.2)),
    )
    info = energy_bill_info(study)
    assert list(info.groups.index) == [
        "Dense controls",
        "On the front",
        "Not on the front",
        "Stopped",
        "Failed",
        "Running",
    ]
    assert info.groups["trials"].tolist() == [1, 1, 1, 1, 2, 1]
    assert info.groups["unrecorded"].tolist() == [0, 0, 0, 0, 1, 0]
    assert info.groups["kwh"].tolist() == [10, 10, 10, 5, 1, 2]
    assert info.groups["gpu"].tolist() == [7, 7, 6, 4, 0.6, 1.2]
    assert info.groups["measured_kwh"].tolist() == pytest.approx([7, 7, 6, 4, 0.6, 1.2])
    assert info.total["kwh"] == pytest.approx(38)
    assert info.total["co2_kg"] == pytest.approx(1)
    assert info.components["kwh"].tolist() == pytest.approx([25.8, 8.4, 3.8])
    assert info.components["source"].tolist() == ["measured", "modelled", "modelled"]


def test_a_dense_control_on_the_front_is_billed_as_control(build):
    assert energy_bill_info(build.study(build.control(0.9, 1.0))).groups.index.tolist() == ["Dense controls"]


@pytest.mark.parametrize(
    ("recorded", "source"),
    [("counter", "measured"), ("integrated", "measured"), ("model", "modelled"), (None, "unknown")],
)
def test_components_say_their_source(build, recorded, source):
    info = energy_bill_info(
        build.study(build.sparse(0.9, 1.0, kwh_cpu=0.8, kwh_ram=0.2, kwh_cpu_source=recorded, kwh_ram_source="model"))
    )
    assert info.components.index.tolist() == ["cpu", "ram"]  # no GPU, so no GPU row of 0 kWh
    assert info.components["source"].tolist() == [source, "modelled"]


def test_sources_that_differ_between_trials_are_both_named(build):
    trials = [build.sparse(0.9, 1.0, kwh_cpu=1.0, kwh_cpu_source=source) for source in ("counter", "model")]
    assert energy_bill_info(build.study(*trials)).components["source"].tolist() == ["measured and modelled"]


def test_energy_that_no_component_explains_is_shown(build):
    info = energy_bill_info(build.study(build.sparse(0.9, 1.0, kwh_cpu=0.75, kwh_cpu_source="counter")))
    assert info.components["kwh"].to_dict() == {"cpu": 0.75, "rest": 0.25}
    assert info.components["source"].tolist() == ["measured", "unknown"]


def test_energy_bill_of_nothing(build):
    for study in (build.study(), build.study(build.trial(state="failed"))):
        info = energy_bill_info(study)
        assert info.components.empty
        assert math.isnan(info.total["kwh"])
        assert info.total["trials"] == len(study.trials)
        assert plot_energy_bill(study)


def test_energy_bars_stack_in_readable_units(build):
    drawn = traces(plot_energy_bill(build.study(build.control(0.9, 1e-5, kwh_cpu=8e-6, kwh_ram=2e-6))))
    assert list(drawn["CPU, unknown"]["x"]) == pytest.approx([8])
    assert list(drawn["RAM, unknown"]["x"]) == pytest.approx([2])
