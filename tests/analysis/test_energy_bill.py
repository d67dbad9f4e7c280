import math

import pytest

from analysis.energy_bill import energy_bill_info
from analysis.figures import plot_energy_bill

NAN = math.nan


def traces(figure):
    return {trace.name: trace for trace in figure.data}


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
