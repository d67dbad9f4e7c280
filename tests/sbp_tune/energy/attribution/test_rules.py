"""Small cases, worked out by hand. The node: 8 cores at 1 W idle and 3 W busy, 64 GB at 0.5 W, T4s at 17 W idle."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sbp_tune.energy.attribution import Attribution, attribute
from sbp_tune.energy.invariants import check
from sbp_tune.energy.records import GpuInfo
from sbp_tune.errors import SbpTuneError


def joules(line) -> dict[str, float | None]:
    return {
        name: None if part.kwh is None else pytest.approx(part.kwh * 3_600_000)
        for name, part in line.components.items()
    }


def billed(node):
    bill = attribute(node.records)
    check(bill, node.records)
    return bill


def test_a_gpu_held_alone_is_billed_whole_and_the_other_is_idle(fake_node, gpus):
    node = fake_node()
    node.open("a", "one", gpus={gpus[0]: 1.0}, cpus=2)
    node.run(100, {gpus[0]: 60, gpus[1]: 20}, {"a": 1.5}, {"a": 8}, steps=10)
    node.close("a")
    bill = billed(node)
    trial = bill.trials["one"]
    assert joules(trial) == {"gpu": 6000, "cpu": 2 * 100 + 3 * 150, "ram": 0.5 * 8 * 100}
    assert joules(bill.idle) == {"gpu": 2000, "cpu": 6 * 100, "ram": 0.5 * (64 - 10) * 100}
    assert joules(bill.other) == {"cpu": 0, "ram": 0.5 * 2 * 100}
    assert joules(bill.machine) == {"gpu": 8000, "cpu": 800 + 450, "ram": 3200}
    assert (trial.seconds, trial.cpu_seconds, trial.coverage, bill.seconds) == (100, 150, 1, 100)
    assert trial.measured_kwh == trial.components["gpu"].kwh
    assert trial.kwh == pytest.approx(trial.measured_kwh + trial.modelled_kwh)
    assert [part.source for part in trial.components.values()] == ["counter", "model", "model"]
    assert trial.components["gpu"].uncertainty == pytest.approx(0.1 + 0.1 / 100)  # the board, and one update
    assert not trial.shared
    assert not bill.warnings


def test_processor_time_outside_all_leases_is_of_other_processes(fake_node):
    node = fake_node()
    node.open("a", "one", cpus=4)
    node.run(10, cores={"a": 1}, other=3)
    bill = billed(node)
    assert joules(bill.trials["one"])["cpu"] == 4 * 10 + 3 * 10
    assert joules(bill.other)["cpu"] == 3 * 30
    assert joules(bill.idle)["cpu"] == 4 * 10
    assert "gpu" not in bill.trials["one"].components


def test_rapl_is_split_into_idle_by_cores_and_the_rest_by_cpu_time(fake_node):
    node = fake_node(rapl=True)
    node.open("a", "one", cpus=2)
    node.open("b", "two", cpus=4)
    node.run(10, cores={"a": 1, "b": 2}, gb={"a": 16, "b": 30}, other=1, cpu_w=88, dram_w=6.4, steps=4)
    bill = billed(node)  # 80 J idle, 800 J over 40 CPU seconds
    assert joules(bill.trials["one"]) == {"cpu": 80 * 2 / 8 + 800 / 4, "ram": 64 * 16 / 64}
    assert joules(bill.trials["two"]) == {"cpu": 80 * 4 / 8 + 800 / 2, "ram": 64 * 30 / 64}
    assert joules(bill.other) == {"cpu": 200, "ram": 2}
    assert joules(bill.idle)["cpu"] == 80 * 2 / 8
    assert bill.trials["one"].modelled_kwh == 0
    assert bill.trials["one"].components["cpu"].source == "counter"


def test_rapl_below_the_idle_model_is_all_idle(fake_node):
    node = fake_node(rapl=True)
    node.open("a", "one", cpus=2)
    node.run(10, cores={"a": 1}, cpu_w=4)
    assert joules(billed(node).trials["one"])["cpu"] == 40 * 2 / 8


def test_a_shared_gpu_goes_by_fraction_and_by_kernels(fake_node, gpus):
    node = fake_node()
    node.open("a", "one", gpus={gpus[0]: 0.5})
    node.open("b", "two", gpus={gpus[0]: 0.25})
    node.run(100, {gpus[0]: 57}, kernels={"a": 0.6, "b": 0.2}, steps=5)
    bill = billed(node)  # 1700 J idle and 4000 J of work
    assert joules(bill.trials["one"])["gpu"] == 1700 * 0.5 + 4000 * 0.75
    assert joules(bill.trials["two"])["gpu"] == 1700 * 0.25 + 4000 * 0.25
    assert joules(bill.idle)["gpu"] == 1700 + 1700 * 0.25  # the other GPU too
    assert bill.trials["one"].shared
    assert bill.trials["two"].shared


@pytest.mark.parametrize("kernels", [{}, {"a": 0.6}, {"a": 0.0, "b": 0.0}])
def test_a_shared_gpu_goes_by_fraction_where_kernels_are_not_known_of_all(fake_node, gpus, kernels):
    node = fake_node()
    node.open("a", "one", gpus={gpus[0]: 0.75})
    node.open("b", "two", gpus={gpus[0]: 0.25})
    node.run(100, {gpus[0]: 57}, kernels=kernels)
    bill = billed(node)
    assert joules(bill.trials["one"])["gpu"] == 5700 * 0.75
    assert joules(bill.trials["two"])["gpu"] == 5700 * 0.25


def test_one_gpu_after_the_other_is_not_sharing(fake_node, gpus):
    node = fake_node()
    node.open("a", "one", gpus={gpus[0]: 1.0})
    node.run(30, {gpus[0]: 60})
    node.close("a")
    node.open("b", "two", gpus={gpus[0]: 1.0})  # at the very same time
    node.run(20, {gpus[0]: 70})
    node.close("b")
    bill = billed(node)
    assert joules(bill.trials["one"])["gpu"] == 1800
    assert joules(bill.trials["two"])["gpu"] == 1400
    assert not bill.trials["one"].shared
    assert not bill.trials["two"].shared
    assert bill.trials["two"].coverage == 1
    assert bill.trials["two"].components["cpu"].kwh


def test_cores_promised_twice_are_billed_once(fake_node):
    node = fake_node()
    node.open("a", "one", cpus=8)
    node.open("b", "two", cpus=8)
    node.run(10)
    bill = billed(node)
    assert joules(bill.trials["one"])["cpu"] == joules(bill.trials["two"])["cpu"] == 40
    assert joules(bill.idle)["cpu"] == 0


def test_the_driver_has_a_line_of_its_own(fake_node):
    node = fake_node()
    node.open("search", None, cpus=0)
    node.run(10, cores={"search": 0.5})
    bill = billed(node)
    assert joules(bill.driver) == {"cpu": 15, "ram": 5}
    assert bill.trials == {}


def test_a_gpu_without_source_is_none_and_never_0(fake_node, gpus):
    node = fake_node(gpus={gpus[0]: GpuInfo("MIG", None, "none", None), gpus[1]: GpuInfo("T4", 70.0, "counter", 0.1)})
    node.open("a", "one", gpus={gpus[0]: 1.0})
    node.open("b", "two", gpus=dict.fromkeys(gpus, 1.0))
    node.run(10)
    bill = billed(node)
    for trial in bill.trials.values():
        assert (trial.components["gpu"].kwh, trial.components["gpu"].source, trial.kwh) == (None, "none", None)
    assert bill.trials["two"].measured_kwh > 0  # what was read is in the sums
    assert bill.not_measured == (f"GPU {gpus[0]} (MIG)",)


def test_processor_and_memory_without_source_are_none(fake_node):
    node = fake_node(cpu_source="none", cpu_uncertainty=None, ram_source="none", ram_uncertainty=None)
    node.open("a", "one")
    node.run(10)
    bill = billed(node)
    assert joules(bill.trials["one"]) == {"cpu": None, "ram": None}
    assert bill.not_measured == ("processor of node alpha", "memory of node alpha")


def test_a_board_measured_as_a_whole_holds_processor_and_memory(fake_node, gpus):
    none = {"cpu_source": "none", "cpu_uncertainty": None, "ram_source": "none", "ram_uncertainty": None}
    board = {gpus[0]: GpuInfo("Orin", 50.0, "integrated", 0.1)}
    node = fake_node(gpus=board, cpu_included_in=gpus[0], ram_included_in=gpus[0], **none)
    node.open("a", "one", gpus={gpus[0]: 1.0})
    node.open("b", "two")
    node.run(10, {gpus[0]: 30})
    bill = billed(node)
    assert joules(bill.trials["one"]) == {"gpu": 300}
    assert bill.trials["one"].components["gpu"].source == "integrated"
    assert joules(bill.trials["two"]) == {"cpu": None, "ram": None}
    assert bill.not_measured == ()


def test_a_gpu_that_no_inventory_knows_is_not_measured(fake_node):
    node = fake_node()
    node.open("a", "one", gpus={"GPU-of-another-node": 1.0})
    node.run(10)
    assert billed(node).trials["one"].kwh is None


def test_a_reading_that_comes_late_is_shared_by_time(fake_node, gpus):
    node = fake_node()
    node.open("a", "one", gpus={gpus[0]: 1.0})
    node.run(30, {gpus[0]: 60})
    node.close("a")
    node.run(10, {gpus[0]: 60})
    node.records = [
        replace(record, gpu_j={**record.gpu_j, gpus[0]: None})
        if record.kind == "snapshot" and 1000 < record.time < 1040
        else record
        for record in node.records
    ]
    bill = billed(node)
    assert joules(bill.trials["one"])["gpu"] == 1800
    assert joules(bill.idle)["gpu"] == 600 + 40 * 17


def test_a_gpu_that_is_lost_leaves_a_trial_badly_covered(fake_node, gpus):
    node = fake_node()
    node.open("a", "one", gpus={gpus[0]: 1.0})
    node.run(60, {gpus[0]: 60})
    node.run(40, {gpus[0]: 60})
    node.close("a")
    node.records = [
        replace(record, gpu_j={**record.gpu_j, gpus[0]: None}, failures={gpus[0]: "GPU is lost"})
        if record.kind == "snapshot" and record.time > 1060
        else record
        for record in node.records
    ]
    bill = billed(node)
    assert joules(bill.trials["one"])["gpu"] == 3600
    assert bill.trials["one"].coverage == pytest.approx(0.6)
    assert not bill.trials["one"].well_covered
    assert bill.warnings == (f"node alpha: {gpus[0]}: GPU is lost",)


@pytest.mark.parametrize(("seconds", "short"), [(19.9, True), (20, False)])
def test_a_short_window_is_flagged(fake_node, seconds, short):
    node = fake_node()
    node.open("a", "one")
    node.run(seconds)
    assert billed(node).trials["one"].too_short_to_rank is short


def test_nothing_is_billed_before_there_are_two_snapshots(fake_node):
    node = fake_node()
    node.open("a", "one")
    trial = billed(node).trials["one"]
    assert (trial.kwh, trial.seconds, trial.coverage) == (None, 0, 1)


def test_records_need_a_node(fake_node):
    with pytest.raises(SbpTuneError, match="snapshot record before any inventory"):
        attribute(fake_node().records[1:])


def test_an_empty_ledger_is_an_empty_bill():
    bill = attribute([])
    check(bill, [])
    assert (bill.trials, bill.machine.kwh, bill.seconds) == ({}, 0, 0)


def test_after_an_error_there_is_no_bill(fake_node):
    node = fake_node()
    attribution = Attribution()
    for record in node.records:
        attribution.add(record)
    with pytest.raises(SbpTuneError, match=r"a snapshot of 999\.000 s after one of 1000\.000 s"):
        attribution.add(replace(node.records[-1], time=999.0))
    for again in (attribution.bill, lambda: attribution.add(node.records[-1])):
        with pytest.raises(SbpTuneError, match="a snapshot of"):
            again()


def test_two_nodes_are_one_bill(fake_node, gpus):
    alpha, beta = fake_node("alpha"), fake_node("beta", start=5.0)
    for attempt, node in enumerate((alpha, beta), start=1):
        node.open(f"lease-{attempt}", "one", gpus={gpus[0]: 1.0}, attempt=attempt)
        node.run(100, {gpus[0]: 60})
        node.close(f"lease-{attempt}")
    alpha.records += beta.records
    bill = billed(alpha)
    assert joules(bill.trials["one"])["gpu"] == 12000
    assert [attempt.node for attempt in bill.trials["one"].attempts] == ["alpha", "beta"]
    assert bill.seconds == 200
