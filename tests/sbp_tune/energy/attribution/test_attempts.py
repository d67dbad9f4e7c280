"""Epochs, attempts and what they wasted, restarts of the meter and events that come late, twice or never."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sbp_tune.energy.attribution import Attribution, attribute
from sbp_tune.energy.invariants import check
from sbp_tune.energy.ledger import LedgerWriter, read_ledger
from sbp_tune.energy.records import EpochMark, Gap, LeaseClosed, LeaseOpened, Snapshot
from sbp_tune.errors import SbpTuneError

KWH = 60 * 100 / 3.6e6  # of a GPU at 60 W for 100 s, which is an epoch below


@pytest.fixture
def node(fake_node):
    """Only its GPUs use energy, so that numbers are round."""
    return fake_node(cpu_idle_w=0.0, cpu_busy_w=0.0, ram_w_per_gb=0.0)


@pytest.fixture
def attempt(node, gpus):
    """Runs epochs of `KWH`; then `more` of one; the epochs in `checkpoints` can be continued from."""

    def run(number, start, end, *, checkpoints=(), more=0.0, trial="one"):
        node.open(f"lease-{number}", trial, gpus={gpus[0]: 1.0}, attempt=number, continued_epoch=start)
        for epoch in range(start + 1, end + 1):
            node.run(100, {gpus[0]: 60}, steps=3)
            node.mark(f"lease-{number}", epoch, epoch in checkpoints)
        if more:
            node.run(100 * more, {gpus[0]: 60})
        node.close(f"lease-{number}", "died")

    return run


def billed(node):
    bill = attribute(node.records)
    check(bill, node.records)
    return bill


def epochs(trial) -> list[float]:
    return [pytest.approx(kwh / KWH) for kwh in trial.epochs.values()]


def test_epochs_are_cumulative(node, attempt):
    attempt(1, 0, 3, more=0.5)
    trial = billed(node).trials["one"]
    assert list(trial.epochs) == [1, 2, 3]
    assert epochs(trial) == [1, 2, 3]
    assert trial.kwh == pytest.approx(3.5 * KWH)
    assert trial.kwh_wasted == 0
    assert trial.attempts[0].reason == "died"


def test_an_epoch_ends_between_snapshots(node, gpus):
    node.open("lease-1", "one", gpus={gpus[0]: 1.0})
    node.run(100, {gpus[0]: 60})
    node.run(100, {gpus[0]: 60})
    node.records.append(EpochMark("lease-1", node.time + 25, 1, False))
    node.run(100, {gpus[0]: 60})
    assert epochs(billed(node).trials["one"]) == [2.25]


def test_what_was_beyond_the_checkpoint_is_wasted(node, attempt):
    attempt(1, 0, 5, checkpoints=(2, 4), more=0.5)
    attempt(2, 4, 6)
    trial = billed(node).trials["one"]
    assert trial.kwh == pytest.approx(7.5 * KWH)
    assert trial.kwh_wasted == pytest.approx(1.5 * KWH)
    assert list(trial.epochs) == [1, 2, 3, 4, 5, 6]
    assert epochs(trial) == [1, 2, 3, 4, 6.5, 7.5]  # the fifth was done again


def test_all_is_wasted_when_the_next_attempt_begins_afresh(node, attempt):
    attempt(1, 0, 3, checkpoints=(1, 2, 3))
    attempt(2, 3, 4)
    attempt(3, 0, 1)
    trial = billed(node).trials["one"]
    assert trial.kwh_wasted == pytest.approx(4 * KWH)
    assert epochs(trial) == [5]


def test_an_attempt_that_got_no_further_is_wasted_whole(node, attempt):
    attempt(1, 0, 2, checkpoints=(2,), more=0.5)
    attempt(2, 2, 2, more=0.7)
    attempt(3, 2, 3, checkpoints=(3,))
    attempt(4, 3, 4)
    trial = billed(node).trials["one"]
    assert [part.kwh_wasted / KWH for part in trial.attempts] == pytest.approx([0.5, 0.7, 0, 0])
    assert epochs(trial) == [1, 2, 4.2, 5.2]


def test_a_checkpoint_that_nobody_wrote_is_a_warning(node, attempt):
    attempt(1, 0, 2)
    attempt(2, 2, 3)
    bill = billed(node)
    assert bill.trials["one"].kwh_wasted == pytest.approx(2 * KWH)
    assert "trial one: no attempt in the ledger has a checkpoint of epoch 2" in bill.warnings[0]


def test_attempts_are_sorted_by_number_and_not_by_node(node, attempt):
    attempt(2, 1, 2)
    attempt(1, 0, 1, checkpoints=(1,))
    trial = billed(node).trials["one"]
    assert [part.lease.attempt for part in trial.attempts] == [1, 2]
    assert trial.kwh_wasted == 0


def test_a_trial_without_a_gpu_reading_has_no_kwh_and_no_epochs(node, attempt, gpus):
    attempt(1, 0, 2, checkpoints=(2,))
    attempt(2, 2, 3)
    node.records = [
        replace(record, gpu_j={}) if isinstance(record, Snapshot) and record.time > 1200 else record
        for record in node.records
    ]
    trial = billed(node).trials["one"]
    assert trial.attempts[0].kwh == pytest.approx(2 * KWH)
    assert (trial.attempts[1].kwh, trial.kwh) == (None, None)
    assert trial.epochs == {1: pytest.approx(KWH), 2: pytest.approx(2 * KWH), 3: None}


def test_a_restarted_meter_leaves_a_gap_that_shows(node, gpus):
    node.open("a", "one", gpus={gpus[0]: 1.0})
    node.run(80, {gpus[0]: 60}, {"a": 1})
    node.restart(20, alive=("a",))
    node.run(100, {gpus[0]: 60}, {"a": 1})
    node.close("a")
    bill = billed(node)
    trial = bill.trials["one"]
    assert trial.measured_kwh * 3.6e6 == pytest.approx(60 * 180 + 30 * 20)  # the GPU's counter went on
    assert trial.cpu_seconds == pytest.approx(180)  # nobody counted in between
    assert trial.coverage == pytest.approx(0.9)
    assert not trial.well_covered
    assert len(bill.gaps) == 1
    assert bill.seconds == pytest.approx(180)


def test_a_short_gap_is_not_flagged(node):
    node.open("a", "one")
    node.run(600)
    node.restart(5, alive=("a",))
    node.run(600)
    assert billed(node).trials["one"].well_covered


def test_a_lease_that_did_not_outlive_the_gap_ended_before_it(node, gpus):
    node.open("a", "one", gpus={gpus[0]: 1.0})
    node.run(80, {gpus[0]: 60})
    node.restart(20)
    node.run(100)
    bill = billed(node)
    trial = bill.trials["one"]
    assert trial.attempts[0].reason == "died"
    assert (trial.seconds, trial.coverage) == (80, 1)
    assert trial.measured_kwh * 3.6e6 == pytest.approx(60 * 80)


def test_a_lease_that_was_given_up_goes_on_when_it_says_so(node, gpus):
    node.open("a", "one", gpus={gpus[0]: 1.0})
    opened = node.records[-1]
    node.run(80, {gpus[0]: 60})
    use = node.use["a"]
    node.restart(20)
    node.run(1)
    node.use["a"] = use
    node.records.append(replace(opened, time=node.time))
    node.snapshot()
    node.run(99, {gpus[0]: 60})
    node.close("a")
    trial = billed(node).trials["one"]
    assert trial.seconds == 200
    assert trial.attempts[0].reason == "finished"
    assert 0.89 < trial.coverage < 0.91


def test_no_lease_outlives_a_boot(node, gpus):
    node.open("a", "one", gpus={gpus[0]: 1.0})
    node.run(80, {gpus[0]: 60})
    node.restart(20, boot=True)  # the clock and all counters begin again
    node.open("b", "one", gpus={gpus[0]: 1.0}, attempt=2)
    node.run(1100, {gpus[0]: 50})  # past the times at which the first had the GPU
    node.close("b")
    bill = billed(node)
    first, second = bill.trials["one"].attempts
    assert (first.seconds, first.reason) == (80, "died")
    assert first.kwh * 3.6e6 == pytest.approx(60 * 80)
    assert second.kwh * 3.6e6 == pytest.approx(50 * 1100)


def test_a_driver_reloaded_while_nobody_looked_is_no_error(node, gpus):
    node.run(10)
    node.gpu_j = dict.fromkeys(gpus, 5.0)
    node.restart(20)
    node.run(10, {gpus[0]: 60})
    assert billed(node).machine.components["gpu"].kwh * 3.6e6 == pytest.approx(60 * 10 + 3 * 10 * 17)


def test_summed_power_does_not_go_on_over_a_gap(fake_node, gpus):
    node = fake_node()
    node.inventory = replace(
        node.inventory, gpus={uuid: replace(gpu, source="integrated") for uuid, gpu in node.inventory.gpus.items()}
    )
    node.records = [node.inventory]
    node.snapshot()
    node.run(10)
    node.restart(20)
    node.run(10)
    assert billed(node).machine.components["gpu"].kwh * 3.6e6 == pytest.approx(2 * 20 * 17)


def test_lost_lines_are_a_gap_for_what_is_not_a_gpu(node, gpus):
    node.open("a", "one", gpus={gpus[0]: 1.0}, cpus=8)
    node.run(50, {gpus[0]: 60})
    node.records.append(Gap(1.0, 2.0, "lost"))
    node.run(50, {gpus[0]: 60})
    trial = billed(node).trials["one"]
    assert trial.kwh * 3.6e6 == pytest.approx(60 * 100)
    assert trial.coverage == pytest.approx(0.5)


def test_a_raised_power_limit_is_no_gap(node, gpus):
    node.open("a", "one", gpus={gpus[0]: 1.0})
    node.run(50, {gpus[0]: 60})
    gpu = node.inventory.gpus
    node.records.append(replace(node.inventory, gpus={**gpu, gpus[0]: replace(gpu[gpus[0]], limit_w=150.0)}))
    node.run(50, {gpus[0]: 120})
    bill = billed(node)
    assert bill.trials["one"].coverage == 1
    assert bill.trials["one"].kwh * 3.6e6 == pytest.approx(60 * 50 + 120 * 50)


def test_events_that_come_twice_count_once(node, attempt):
    attempt(1, 0, 3, checkpoints=(2,), more=0.5)
    attempt(2, 2, 4)
    twice = [again for record in node.records for again in (record, record)]
    assert attribute(twice) == attribute(node.records)


def test_the_first_end_counts(node):
    node.open("a", "one")
    node.run(50)
    node.close("a", "finished")
    node.records.append(LeaseClosed("a", node.time, "died"))
    node.run(50)
    node.records.append(LeaseClosed("a", node.time, "died"))
    attempt = billed(node).trials["one"].attempts[0]
    assert (attempt.seconds, attempt.reason) == (50, "finished")


def test_a_lease_has_one_trial(node):
    node.open("a", "one")
    with pytest.raises(SbpTuneError, match="lease a was opened twice"):
        attribute([*node.records, replace(node.records[-1], trial="two")])


def test_a_late_opening_is_not_covered_and_a_late_end_was_billed(node, gpus):
    node.open("a", "one", gpus={gpus[0]: 1.0})
    opened = node.records.pop()
    node.run(20, {gpus[0]: 60})
    node.records.append(opened)
    node.run(60, {gpus[0]: 60})
    node.run(20, {gpus[0]: 60})
    node.records.append(LeaseClosed("a", node.time - 20, "died"))
    trial = billed(node).trials["one"]
    assert trial.kwh * 3.6e6 == pytest.approx(60 * 80)
    assert (trial.seconds, trial.coverage) == (100, pytest.approx(0.8))


def test_a_dead_process_loses_its_last_interval_at_most(node, gpus):
    node.open("a", "one", gpus={gpus[0]: 1.0})
    node.run(30, {gpus[0]: 60}, {"a": 1})
    last_seen = node.time
    del node.use["a"]
    node.records.append(LeaseClosed("a", last_seen, "died"))
    node.run(1, {gpus[0]: 60})
    trial = billed(node).trials["one"]
    assert trial.seconds == 30
    assert trial.cpu_seconds == pytest.approx(30)
    assert trial.kwh * 3.6e6 == pytest.approx(60 * 30)


def test_leases_of_which_the_opening_is_lost_are_named(node):
    node.open("a", "one")
    node.run(10)
    node.close("a")
    bill = billed(replace_records(node, lambda record: not isinstance(record, LeaseOpened)))
    assert bill.trials == {}
    assert bill.warnings == ("node alpha: the opening of lease a is not in the ledger",)


def replace_records(node, keep):
    node.records = [record for record in node.records if keep(record)]
    return node


def test_a_restarted_meter_goes_on_where_its_ledger_ends(node, gpus, tmp_path):
    node.open("a", "one")
    node.open("b", "two", gpus={gpus[0]: 1.0})
    node.run(30, {gpus[0]: 60})
    node.close("a")
    with LedgerWriter(tmp_path, node.records[0]) as writer:
        for record in node.records[1:]:
            writer.append(record)
    node.restart(10, alive=("b",))
    with LedgerWriter(tmp_path, node.inventory) as writer:
        live = Attribution()
        for record in read_ledger(tmp_path, node="alpha"):
            live.add(record)
        assert [lease.lease for lease in live.open_leases()] == ["b"]
        written = len(node.records)
        node.run(30, {gpus[0]: 60})
        for record in node.records[written - 1 :]:
            writer.append(record)
            live.add(record)
    bill = attribute(read_ledger(tmp_path))
    assert live.bill() == bill == billed(node)
    assert bill.trials["two"].measured_kwh * 3.6e6 == pytest.approx(60 * 60 + 30 * 10)
