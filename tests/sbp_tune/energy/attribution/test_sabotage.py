"""Deliberate mistakes, those that tools in use make among them: each must be caught by `check`."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sbp_tune.energy import account, attribution, lease_state, node_attribution
from sbp_tune.energy.attribution import attribute
from sbp_tune.energy.bill import Line
from sbp_tune.energy.invariants import check
from sbp_tune.energy.node_attribution import NodeAttribution
from sbp_tune.energy.reading import Component
from sbp_tune.energy.records import Snapshot
from sbp_tune.energy.split import Shares, split_cpu, split_gpu, split_ram
from sbp_tune.errors import SbpTuneError


@pytest.fixture(params=[False, True], ids=["modelled", "rapl"])
def records(request, fake_node, gpus):
    """Two trials on GPUs of their own, one of them killed and retried, a driver, and a meter that was restarted."""
    node = fake_node(rapl=request.param)
    rates = {"cpu_w": 60, "dram_w": 5, "other": 0.3, "steps": 3}
    node.open("driver", None, cpus=0)
    node.run(10, {gpus[0]: 17, gpus[1]: 18}, {"driver": 0.1}, **rates)
    node.open("a-1", "one", gpus={gpus[0]: 1.0}, cpus=2)
    node.open("b-1", "two", gpus={gpus[1]: 1.0}, cpus=3)
    node.run(30, {gpus[0]: 66, gpus[1]: 41}, {"a-1": 1.5, "b-1": 0.5}, {"a-1": 8, "b-1": 4}, **rates)
    node.mark("a-1", 1)
    node.run(20, {gpus[0]: 65, gpus[1]: 42}, {"a-1": 1.4, "b-1": 0.6}, **rates)
    node.mark("a-1", 2)
    node.close("a-1", "died")
    node.restart(15, alive=("driver", "b-1"))
    node.open("a-2", "one", gpus={gpus[0]: 1.0}, cpus=2, attempt=2, continued_epoch=1)
    node.run(40, {gpus[0]: 60, gpus[1]: 40}, {"a-2": 1.5, "b-1": 0.5}, **rates)
    node.mark("a-2", 2)
    node.close("a-2")
    node.close("b-1", "stopped")
    node.run(5, **rates)
    return node.records


def caught(records, match=""):
    bill = attribute(records)
    with pytest.raises(SbpTuneError, match=match):
        check(bill, records)


def test_without_sabotage_nothing_is_caught(records):
    check(attribute(records), records)


def test_an_idle_gpu_counted_twice(records, monkeypatch):
    def twice(joules, idle_j, holds):
        shares = split_gpu(joules, idle_j, holds)
        return replace(shares, idle=shares.idle + idle_j)

    monkeypatch.setattr(node_attribution, "split_gpu", twice)
    caught(records, "measured kWh of trials and overhead, against the machine's")


def test_an_idle_processor_counted_twice(records, monkeypatch):
    def twice(joules, idle_j, cores, busy_s, holds):
        shares = split_cpu(joules, idle_j, cores, busy_s, holds)
        leases = {lease: part + idle_j * holds[lease].cores / cores for lease, part in shares.leases.items()}
        return replace(shares, leases=leases)

    monkeypatch.setattr(node_attribution, "split_cpu", twice)
    caught(records, "of trials and overhead, against the machine's")


def test_an_idle_processor_counted_twice_in_the_machine_too(records, monkeypatch):
    whole = NodeAttribution._book

    def twice(self, component, source, uncertainty, joules, shares):
        if component == "cpu":
            joules, shares = 2 * joules, Shares(shares.leases, shares.idle + joules, shares.other)
        whole(self, component, source, uncertainty, joules, shares)

    monkeypatch.setattr(NodeAttribution, "_book", twice)
    caught(records, "of the machine, against its counters")


@pytest.mark.parametrize("factor", [1.0, 3600.0, 3.6e6 / 1.58, 3.6e6 / 1.58**2], ids=["J", "Wh", "PUE", "PUE twice"])
def test_another_unit_or_a_factor_that_does_not_belong_here(records, monkeypatch, factor):
    monkeypatch.setattr(account, "JOULES_PER_KWH", factor)
    caught(records, "against its counters")


def test_epochs_in_joules(records, monkeypatch):
    monkeypatch.setattr(lease_state, "JOULES_PER_KWH", 1.0)
    caught(records, "kWh in epochs")


def test_one_component_in_joules(records, monkeypatch):
    whole = NodeAttribution._book

    def mixed(self, component, source, uncertainty, joules, shares):
        if component == "ram":
            shares = replace(shares, leases={lease: part / 3.6e6 for lease, part in shares.leases.items()})
        whole(self, component, source, uncertainty, joules, shares)

    monkeypatch.setattr(NodeAttribution, "_book", mixed)
    caught(records, "of trials and overhead")


def test_swapped_uuids(records, monkeypatch, gpus):
    """The sums are right, and each trial is billed the other one's GPU."""
    whole = NodeAttribution.snapshot

    def swapped(self, now):
        whole(self, replace(now, gpu_j={gpus[0]: now.gpu_j[gpus[1]], gpus[1]: now.gpu_j[gpus[0]]}))

    monkeypatch.setattr(NodeAttribution, "snapshot", swapped)
    caught(records, "kWh of the GPUs that it held alone, against their counters")


def test_all_gpus_in_one_pot(records, monkeypatch):
    whole = NodeAttribution._book

    def pooled(self, component, source, uncertainty, joules, shares):
        if component == "gpu" and shares.leases:
            on_gpu = [lease for lease in ("a-1", "a-2", "b-1") if lease in self.leases._open]
            shares = replace(shares, leases={lease: joules / len(on_gpu) for lease in on_gpu})
        whole(self, component, source, uncertainty, joules, shares)

    monkeypatch.setattr(NodeAttribution, "_book", pooled)
    caught(records, "held alone")


def test_idle_taken_from_a_gpu_that_nobody_else_could_use(records, monkeypatch):
    def without_idle(joules, idle_j, holds):
        parts = {lease: max(0.0, joules - idle_j) * hold.during for lease, hold in holds.items()}
        return Shares(parts, joules - math.fsum(parts.values()), 0.0)

    monkeypatch.setattr(node_attribution, "split_gpu", without_idle)
    caught(records, "held alone")


def test_reaped_children_dropped(records, monkeypatch):
    """The attribution refuses it; should it look away, the check does not."""
    at = next(i for i, r in enumerate(records) if isinstance(r, Snapshot) and r.leases.get("b-1") and r.time > 1030)
    use = records[at].leases["b-1"]
    records[at] = replace(records[at], leases={**records[at].leases, "b-1": replace(use, cpu_s=use.cpu_s - 9)})
    with pytest.raises(SbpTuneError, match="lease b-1: CPU seconds went backwards"):
        attribute(records)
    monkeypatch.setattr(node_attribution, "_ahead", lambda before, now, what: max(0.0, now - before))
    caught(records, "lease b-1: CPU seconds went backwards: were reaped children dropped")


def test_cpu_seconds_lost(records, monkeypatch):
    whole = node_attribution._cpu_s
    monkeypatch.setattr(node_attribution, "_cpu_s", lambda *of: 0.5 * whole(*of))
    caught(records, "CPU seconds, against its snapshots")


def test_the_whole_processor_charged_to_each_trial(records, monkeypatch):
    """As trackers of the whole machine do, one in each trial."""

    def each(joules, idle_j, cores, busy_s, holds):
        return Shares(dict.fromkeys(holds, joules), 0.0, 0.0)

    monkeypatch.setattr(node_attribution, "split_cpu", each)
    caught(records, "of trials and overhead")


def test_the_whole_memory_charged_to_each_trial(records, monkeypatch):
    def each(joules, ram_gb, used_gb, holds):
        return replace(split_ram(joules, ram_gb, used_gb, holds), leases=dict.fromkeys(holds, joules))

    monkeypatch.setattr(node_attribution, "split_ram", each)
    caught(records, "of trials and overhead")


def test_idle_cores_charged_to_whoever_happens_to_run(records, monkeypatch):
    """The sums are right, but a trial's number depends on its neighbours."""

    def by_those_there(joules, idle_j, cores, busy_s, holds):
        reserved = math.fsum(hold.cores for hold in holds.values())
        return split_cpu(joules, idle_j, reserved or cores, busy_s, holds)

    monkeypatch.setattr(node_attribution, "split_cpu", by_those_there)
    if attribute(records).trials["one"].components["cpu"].source == "model":
        caught(records, "is more than .* of its cores and its CPU seconds")
    else:  # nobody knows what a core draws: the rule itself has the test
        check(attribute(records), records)


@pytest.mark.parametrize("line", ["driver", "idle", "other"])
def test_an_overhead_forgotten(records, line):
    bill = replace(attribute(records), **{line: Line({}, 0.0, 0.0)})
    with pytest.raises(SbpTuneError, match="of trials and overhead"):
        check(bill, records)


def test_a_trial_forgotten(records):
    bill = attribute(records)
    del bill.trials["two"]
    with pytest.raises(SbpTuneError, match="of trials and overhead"):
        check(bill, records)


def test_an_attempt_forgotten_or_counted_twice(records, monkeypatch):
    whole = attribution.trial_bill
    for attempts in (lambda lines: lines[-1:], lambda lines: [*lines, lines[0]]):
        monkeypatch.setattr(attribution, "trial_bill", lambda lines, attempts=attempts: whole(attempts(lines)))
        caught(records, "of trials and overhead")


def test_pue_applied_to_the_bill(records):
    def building(line):
        parts = {name: replace(part, kwh=1.58 * part.kwh) for name, part in line.components.items()}
        return replace(
            line, components=parts, measured_kwh=1.58 * line.measured_kwh, modelled_kwh=1.58 * line.modelled_kwh
        )

    bill = attribute(records)
    lines = {name: building(getattr(bill, name)) for name in ("driver", "idle", "other", "machine")}
    trials = {
        name: replace(building(trial), attempts=tuple(building(attempt) for attempt in trial.attempts))
        for name, trial in bill.trials.items()
    }
    bill = replace(bill, trials=trials, **lines)
    with pytest.raises(SbpTuneError, match="of the machine, against its counters"):
        check(bill, records)


def test_nothing_passed_off_as_0(records):
    bill = attribute(records)
    trial = bill.trials["one"]
    bill.trials["one"] = replace(trial, components={**trial.components, "ram": Component(0.0, "none", None)})
    with pytest.raises(SbpTuneError, match=r"trial one: ram: .* a component without source has no number"):
        check(bill, records)


def test_a_component_that_is_not_in_the_sums(records):
    bill = attribute(records)
    trial = bill.trials["one"]
    bill.trials["one"] = replace(trial, components={**trial.components, "gpu": Component(9.0, "counter", 0.1)})
    with pytest.raises(SbpTuneError, match="trial one: kWh of its components"):
        check(bill, records)


def test_energy_that_falls(records):
    bill = attribute(records)
    trial = bill.trials["one"]
    bill.trials["one"] = replace(trial, epochs=dict(zip(trial.epochs, reversed(trial.epochs.values()), strict=True)))
    with pytest.raises(SbpTuneError, match=r"trial one: .* energy cannot fall"):
        check(bill, records)


def test_more_wasted_than_used(records):
    bill = attribute(records)
    bill.trials["one"] = replace(bill.trials["one"], kwh_wasted=1.0)
    with pytest.raises(SbpTuneError, match="1 wasted, of only"):
        check(bill, records)


def test_negative_energy(records):
    bill = attribute(records)
    bill = replace(bill, other=replace(bill.other, modelled_kwh=-1.0))
    with pytest.raises(SbpTuneError, match=r"other: -1\.0 kWh: energy is a number of at least 0"):
        check(bill, records)


def test_a_gap_that_is_hidden(records, monkeypatch):
    whole = NodeAttribution.restart

    def seamless(self, inventory):
        whole(self, inventory)
        for state in self.leases._open.values():
            state.cover("use", 15)
            state.cover("cpu", 15)
            state.cover("ram", 15)

    monkeypatch.setattr(NodeAttribution, "restart", seamless)
    caught(records, "lease b-1 of trial two: coverage .* is more than its snapshots cover")


def test_more_power_than_a_gpu_has(records, monkeypatch, gpus):
    """Should the gate in the attribution be gone."""
    monkeypatch.setattr(node_attribution.PowerGate, "add", lambda *of: None)
    records = [
        replace(record, gpu_j={uuid: 20 * joules for uuid, joules in record.gpu_j.items()})
        if isinstance(record, Snapshot)
        else record
        for record in records
    ]
    caught(records, "is more than its GPUs can use at 70 W")
