"""The nine invariants, on whatever can happen to a node."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sbp_tune.energy.attribution import Attribution, attribute
from sbp_tune.energy.invariants import check
from sbp_tune.energy.ledger import LedgerWriter, read_ledger
from sbp_tune.energy.records import EpochMark, Gap, GpuInfo, Inventory, LeaseClosed, LeaseOpened, Snapshot
from sbp_tune.errors import SbpTuneError

EVENTS = (LeaseOpened, LeaseClosed, EpochMark)


def same(one, other) -> bool:
    """Equal bills but for rounding."""
    return numbers(one) == pytest.approx(numbers(other), rel=1e-9, abs=1e-15)


def numbers(bill) -> dict[tuple, float]:
    found: dict[tuple, float] = {}
    lines = {"idle": bill.idle, "other": bill.other, "driver": bill.driver, "machine": bill.machine}
    for name, line in {**lines, **bill.trials}.items():
        found[name, "measured"], found[name, "modelled"] = line.measured_kwh, line.modelled_kwh
        found |= {(name, part): math.nan if c.kwh is None else c.kwh for part, c in line.components.items()}
    for name, trial in bill.trials.items():
        found |= {(name, epoch): math.nan if kwh is None else kwh for epoch, kwh in trial.epochs.items()}
        found[name, "wasted"] = math.nan if trial.kwh_wasted is None else trial.kwh_wasted
        found[name, "cpu_seconds"], found[name, "coverage"] = trial.cpu_seconds, trial.coverage
    return {key: value for key, value in found.items() if not math.isnan(value)}


@pytest.fixture(scope="session")
def drawn(histories):
    """Draws a node on which anything has happened; its records make a bill that passes every check."""

    def draw(data):
        node = data.draw(histories)
        bill = attribute(node.records)
        check(bill, node.records)
        return node, bill

    return draw


@given(st.data())
@settings(deadline=None)
def test_1_trials_and_overhead_are_the_machine(drawn, data):
    _, bill = drawn(data)
    parts = [bill.idle, bill.other, bill.driver, *bill.trials.values()]
    assert math.fsum(part.known_kwh for part in parts) == pytest.approx(bill.machine.known_kwh, rel=1e-9, abs=1e-15)


def test_1_holds_to_rounding_after_a_week_of_snapshots(fake_node, gpus):
    node = fake_node(rapl=True)
    node.open("a", "one", gpus={gpus[0]: 0.3}, cpus=3)
    node.open("b", "two", gpus={gpus[0]: 0.7}, cpus=1.1)
    node.run(0.1 * 20_000, {gpus[0]: 57.7}, {"a": 0.7, "b": 1.3}, other=0.1, cpu_w=31.7, dram_w=3.3, steps=20_000)
    bill = attribute(node.records)
    parts = [bill.idle, bill.other, *bill.trials.values()]
    assert math.fsum(part.known_kwh for part in parts) == pytest.approx(bill.machine.known_kwh, rel=1e-13)
    check(bill, node.records)


@given(st.data())
@settings(deadline=None)
def test_2_no_line_is_negative(drawn, data):
    _, bill = drawn(data)
    for line in (bill.machine, bill.idle, bill.other, bill.driver, *bill.trials.values()):
        assert all(part.kwh is None or part.kwh >= 0 for part in line.components.values())


@given(st.data())
@settings(deadline=None)
def test_3_what_a_trial_has_used_never_falls(drawn, data):
    node, _ = drawn(data)
    attribution, before = Attribution(), {}
    for record in node.records:
        attribution.add(record)
        bill = attribution.bill()
        for name, trial in bill.trials.items():
            assert trial.known_kwh >= before.get(name, 0.0)
        before = {name: trial.known_kwh for name, trial in bill.trials.items()}


@given(st.data())
@settings(deadline=None)
def test_4_more_snapshots_of_the_same_change_nothing(histories, data):
    """Between any two snapshots of one meter, another one on the straight line; lease edges keep their own."""
    node = data.draw(histories)
    cuts = data.draw(st.randoms(use_true_random=False))
    refined = []
    last: Snapshot | None = None
    for record in node.records:
        if isinstance(record, Snapshot):
            if last is not None and last.time < record.time and last.leases.keys() == record.leases.keys():
                part = cuts.uniform(0.01, 0.99)
                refined.append(between(last, record, part))
            last = record
        elif isinstance(record, (Inventory, Gap)):
            last = None
        refined.append(record)
    bill = attribute(refined)
    check(bill, refined)
    assert same(bill, attribute(node.records))


def between(one: Snapshot, other: Snapshot, part: float) -> Snapshot:
    def mix(a, b):
        return None if a is None or b is None else a + (b - a) * part

    leases = {
        lease: replace(
            use,
            cpu_s=mix(use.cpu_s, other.leases[lease].cpu_s),
            gpu_busy_s={uuid: mix(s, other.leases[lease].gpu_busy_s[uuid]) for uuid, s in use.gpu_busy_s.items()},
        )
        for lease, use in one.leases.items()
    }
    return replace(
        one,
        time=mix(one.time, other.time),
        wall=mix(one.wall, other.wall),
        gpu_j={uuid: mix(joules, other.gpu_j[uuid]) for uuid, joules in one.gpu_j.items()},
        cpu_j=mix(one.cpu_j, other.cpu_j),
        dram_j=mix(one.dram_j, other.dram_j),
        busy_cpu_s=mix(one.busy_cpu_s, other.busy_cpu_s),
        leases=leases,
    )


@given(
    st.lists(st.tuples(st.floats(0.1, 50), st.floats(1, 70), st.floats(0, 2), st.floats(0, 20)), min_size=1),
    st.floats(0, 2),
    st.booleans(),
)
@settings(deadline=None)
def test_5_a_neighbour_changes_nothing(fake_node, gpus, phases, neighbour, coming_and_going):
    """On another GPU, with cores and memory to spare, whatever it does and however often it begins anew."""

    def trial(crowded):
        node = fake_node()
        node.open("a", "one", gpus={gpus[0]: 1.0}, cpus=2)
        for number, (seconds, watts, cores, gb) in enumerate(phases):
            if crowded and (coming_and_going or number == 0):
                node.open(f"b{number}", "two", gpus={gpus[1]: 1.0}, cpus=5, attempt=number)
            others = {lease: neighbour for lease in node.use if lease != "a"}
            node.run(seconds, {gpus[0]: watts}, {"a": cores, **others}, {"a": gb}, steps=1 + crowded)
            if crowded and coming_and_going:
                node.close(f"b{number}")
        bill = attribute(node.records)
        check(bill, node.records)
        return bill.trials["one"].components

    alone, crowded = trial(False), trial(True)
    for name in ("gpu", "cpu", "ram"):
        assert alone[name].kwh == pytest.approx(crowded[name].kwh, rel=1e-12)


@pytest.mark.parametrize("watts", [1034, 1189])
def test_6_published_numbers_that_cannot_be_true_are_refused(fake_node, gpus, watts):
    """DenseNet and ResNet18 on an Orin in its 50 W mode, as published: 107.5 kJ in 104 s and 95.1 kJ in 80 s."""
    board = {gpus[0]: GpuInfo("Jetson AGX Orin", 50.0, "counter", 0.1)}
    node = fake_node(gpus=board)
    node.open("a", "one", gpus={gpus[0]: 1.0})
    node.run(100, {gpus[0]: watts})
    message = rf"GPU {gpus[0]} \(Jetson AGX Orin\): mean power {watts} W over 100.0 s is above its limit of 50 W"
    with pytest.raises(SbpTuneError, match=message):
        attribute(node.records)


def test_6_a_wild_minute_in_a_calm_day_is_refused(fake_node, gpus):
    node = fake_node()
    for watts in (10, 100, 10):
        node.run(60, {gpus[0]: watts}, steps=60)
        if watts == 10:
            node.run(12 * 3600, {gpus[0]: 10})
    with pytest.raises(SbpTuneError, match="above its limit of 70 W"):
        attribute(node.records)


def test_6_a_late_reading_just_inside_a_short_window_is_granted(fake_node, gpus):
    node = fake_node()
    node.run(0.001, {gpus[0]: 7.0 / 0.001})  # 100 ms at 70 W
    node.run(100, {gpus[0]: 77})
    attribute(node.records)


def test_6_a_processor_has_a_limit_too(fake_node):
    node = fake_node(rapl=True, cpu_limit_w=65.0)
    node.run(20, cpu_w=60)
    attribute(node.records)
    node.run(20, cpu_w=80)
    with pytest.raises(SbpTuneError, match=r"processor of node alpha: mean power 80 W .* limit of 65 W"):
        attribute(node.records)


def test_6_without_a_known_limit_there_is_no_check(fake_node, gpus):
    node = fake_node(gpus={gpus[0]: GpuInfo("T4", None, "counter", 0.1)})
    node.run(20, {gpus[0]: 5000})
    attribute(node.records)


@pytest.mark.parametrize(("share", "warned"), [(0.91, False), (0.6, True), (1.5, True), (0.0, True)])
def test_7_a_counter_that_disagrees_with_its_power_is_a_warning(fake_node, gpus, share, warned):
    node = fake_node()
    node.run(200, {gpus[0]: 50}, steps=200)
    node.records = [
        replace(record, gpu_power_j={gpus[0]: (record.time - 1000) * 50 * share, gpus[1]: None})
        if isinstance(record, Snapshot)
        else record
        for record in node.records
    ]
    warnings = attribute(node.records).warnings
    assert len(warnings) == warned
    if warned:
        said = f"for a minute its counter said 50 W, its power readings {50 * share:.0f} W"
        assert warnings == (f"GPU {gpus[0]} (Tesla T4): {said}",)


def test_7_less_than_a_minute_tells_nothing(fake_node, gpus):
    node = fake_node()
    node.run(59, {gpus[0]: 50}, steps=59)
    node.records = [
        replace(record, gpu_power_j={gpus[0]: 0.0}) if isinstance(record, Snapshot) else record
        for record in node.records
    ]
    assert not attribute(node.records).warnings


@pytest.mark.parametrize("kernels", [{"a": 1.0}, {"a": 0.2}, {}])
def test_8_a_gpu_in_use_that_uses_no_energy_is_an_error(fake_node, gpus, kernels):
    node = fake_node()
    node.open("a", "one", gpus={gpus[0]: 1.0})
    node.run(10, {gpus[0]: 0.0}, kernels=kernels, steps=10)
    with pytest.raises(SbpTuneError, match=rf"GPU {gpus[0]} \(Tesla T4\): in use for .* did not move"):
        attribute(node.records)


def test_8_a_gpu_that_sleeps_is_no_error(fake_node, gpus):
    node = fake_node()
    node.run(10, {gpus[0]: 0.0}, steps=10)
    node.open("a", "one", gpus={gpus[0]: 1.0})
    node.run(10, {gpus[0]: 0.0}, kernels={"a": 0.0}, steps=10)
    assert attribute(node.records).trials["one"].components["gpu"].kwh == 0  # read, and nothing


@given(st.floats(1, 500), st.floats(0.1, 500), st.floats(1, 500))
@settings(deadline=None)
def test_9_coverage_is_the_part_of_a_lease_with_readings(fake_node, before, away, after):
    node = fake_node()
    node.open("a", "one")
    node.run(before)
    node.restart(away, alive=("a",))
    node.run(after)
    node.close("a")
    trial = attribute(node.records).trials["one"]
    assert trial.coverage == pytest.approx((before + after) / (before + away + after))
    assert trial.well_covered == (trial.coverage >= 0.99)


@given(st.data())
@settings(deadline=None)
def test_order_and_repetition_of_lease_events_between_snapshots_do_not_matter(drawn, data):
    node, bill = drawn(data)
    shuffle = data.draw(st.randoms(use_true_random=False))
    mixed: list = []
    events: list = []
    for record in node.records:
        if isinstance(record, EVENTS):
            events += [record] * shuffle.choice([1, 1, 2, 3])
            continue
        shuffle.shuffle(events)
        mixed, events = [*mixed, *events, record], []
    shuffle.shuffle(events)
    again = attribute([*mixed, *events])
    assert again.idle == bill.idle
    assert dict(sorted(again.trials.items())) == dict(sorted(bill.trials.items()))


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_a_live_meter_and_its_ledger_agree_exactly(tmp_path_factory, drawn, data):
    node, bill = drawn(data)
    folder = tmp_path_factory.mktemp("ledger")
    live = Attribution()
    live.add(node.records[0])
    with LedgerWriter(folder, node.records[0], segment_bytes=4000) as writer:
        for record in node.records[1:]:
            writer.append(record)
            live.add(record)
    assert attribute(read_ledger(folder)) == live.bill() == bill
    check(bill, read_ledger(folder))


@given(st.data())
@settings(deadline=None)
def test_a_ledger_cut_anywhere_makes_a_bill(histories, data):
    records = data.draw(histories).records
    records = records[: data.draw(st.integers(0, len(records)))]
    check(attribute(records), records)


@given(st.data())
@settings(deadline=None)
def test_a_ledger_with_holes_makes_a_bill_of_less(histories, data):
    records = data.draw(histories).records
    start = data.draw(st.integers(1, len(records)))
    end = data.draw(st.integers(start, len(records)))
    assume(not any(isinstance(record, Inventory) for record in records[start:end]))
    holed = [*records[:start], Gap(0.0, 1.0, "lost"), *records[end:]]
    bill = attribute(holed)
    check(bill, holed)
    whole = attribute(records)
    assert bill.machine.known_kwh <= whole.machine.known_kwh * (1 + 1e-9) + 1e-15


def test_shares_follow_cpu_time_whatever_the_noise(fake_node):
    """Busy time from other clocks than the processes' own: never more is billed than there is."""
    noise = random.Random(0)
    node = fake_node(rapl=True)
    node.open("a", "one", cpus=4)
    node.open("b", "two", cpus=4)
    for _ in range(200):
        node.run(1, cores={"a": 3, "b": 1}, other=noise.uniform(-0.5, 0.0), cpu_w=40)
    bill = attribute(node.records)
    check(bill, node.records)
    one, two = (bill.trials[name].components["cpu"].kwh * 3.6e6 - 4 * 200 for name in ("one", "two"))
    assert one / two == pytest.approx(3, rel=1e-9)
    assert one + two == pytest.approx(200 * 32)
