from __future__ import annotations

import pytest

from sbp_tune.energy.counters.gpu import NvidiaGpus
from sbp_tune.energy.nvml import Nvml
from sbp_tune.errors import SbpTuneError

WATTS = (70, 60, 50, 10)


def joules(gpus, clock, before):
    return [gpus.joules(uuid, clock()) - start for uuid, start in before.items()]


def start(gpus, clock):
    return {uuid: gpus.joules(uuid, clock()) for uuid in gpus.parts}


def test_one_object_reads_all_gpus(nvml, clock, uuids):
    gpus = NvidiaGpus(nvml, clock())
    before = start(gpus, clock)
    clock.advance(100)
    assert joules(gpus, clock, before) == pytest.approx([100 * watts for watts in WATTS])
    assert [gpus.parts[uuid].source for uuid in uuids] == ["counter"] * 4
    assert gpus.parts[uuids[0]].name == "Tesla T4"
    assert gpus.parts[uuids[0]].limit_w == 70
    assert gpus.parts[uuids[0]].boundary == "GPU board"
    assert not gpus.sampled


def test_a_new_meter_goes_on_where_the_last_one_ended(nvml, clock, uuids):
    first = NvidiaGpus(nvml, clock())
    clock.advance(100)
    last = first.joules(uuids[0], clock())
    clock.advance(50)
    again = NvidiaGpus(nvml, clock()).joules(uuids[0], clock())
    assert again - last == pytest.approx(50 * 70)


def test_each_uuid_keeps_its_own_energy_when_the_driver_reorders(library, clock, uuids):
    library.gpus = [library.gpus[i] for i in (3, 1, 0, 2)]
    gpus = NvidiaGpus(Nvml(library), clock())
    before = start(gpus, clock)
    clock.advance(100)
    found = dict(zip(before, joules(gpus, clock, before), strict=True))
    assert [found[uuid] for uuid in uuids] == pytest.approx([100 * watts for watts in WATTS])


def test_a_gpu_without_counter_is_summed_up_at_10_hz_and_says_so(library, nvml, clock, uuids):
    library.gpus[1].unsupported = {"energy"}
    gpus = NvidiaGpus(nvml, clock())
    assert gpus.sampled
    part = gpus.parts[uuids[1]]
    assert (part.source, part.update_s) == ("integrated", 0.1)
    assert part.uncertainty > gpus.parts[uuids[0]].uncertainty
    for tenth in range(100):  # 60 W and 20 W, half a second each
        library.gpus[1].power_w = 60 if tenth % 10 < 5 else 20
        gpus.sample(clock())
        clock.advance(0.1)
    assert gpus.joules(uuids[1], clock()) == pytest.approx(10 * 40, rel=0.01)


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda gpu: gpu.unsupported.update({"energy", "power"}), "NotSupported"),
        (lambda gpu: setattr(gpu, "mig", True), "MIG"),
        (lambda gpu: setattr(gpu, "lost", True), "GPU is lost"),
    ],
)
def test_a_gpu_that_cannot_be_read_has_a_reason_and_no_joules(break_it, reason, library, clock, uuids):
    break_it(library.gpus[2])
    gpus = NvidiaGpus(Nvml(library), clock())
    assert gpus.parts[uuids[2]].source == "none"
    assert reason in gpus.parts[uuids[2]].reason
    assert gpus.joules(uuids[2], clock()) is None
    assert gpus.joules(uuids[1], clock()) is not None


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda gpu: setattr(gpu, "lost", True), "GPU is lost"),
        (lambda gpu: setattr(gpu, "since_load_mj", 0), "went backwards"),
        (lambda gpu: setattr(gpu, "stuck", True), "went backwards"),  # back to what it read at the start
        (lambda gpu: setattr(gpu, "power_w", 1034), "above its limit of 70 W"),
        (lambda gpu: gpu.unsupported.add("energy"), "can no longer be read"),
    ],
)
def test_a_gpu_that_fails_fails_alone_and_for_good(break_it, message, library, nvml, clock, uuids):
    gpus = NvidiaGpus(nvml, clock())
    clock.advance(10)
    before = start(gpus, clock)
    broken = library.gpus[0]
    healthy = dict(vars(broken))
    break_it(broken)
    clock.advance(10)
    with pytest.raises(SbpTuneError, match=f"{uuids[0]}.*({message})"):
        gpus.joules(uuids[0], clock())
    assert [gpus.joules(uuid, clock()) - before[uuid] for uuid in uuids[1:]] == pytest.approx([600, 500, 100])
    vars(broken).update(healthy)
    with pytest.raises(SbpTuneError, match=message):
        gpus.joules(uuids[0], clock())


def test_a_wild_minute_is_not_averaged_away_by_days_of_quiet(library, nvml, clock, uuids):
    gpu = library.gpus[3]
    gpus = NvidiaGpus(nvml, clock())
    for _ in range(1000):
        clock.advance(60)
        gpus.joules(uuids[3], clock())
    gpu.since_load_mj += 60_000 * 400  # 400 W over a minute
    clock.advance(60)
    with pytest.raises(SbpTuneError, match=r"mean power 410 W over 60\.0 s is above its limit of 70 W"):
        gpus.joules(uuids[3], clock())


def test_a_limit_that_was_raised_meanwhile_is_asked_for_again(library, nvml, clock, uuids):
    gpus = NvidiaGpus(nvml, clock())
    library.gpus[0].since_load_mj += 1000 * 100 * 20
    library.gpus[0].limit_w = 120
    clock.advance(20)
    library.gpus[0].since_load_mj -= 1000 * 70 * 20  # 100 W since the start
    assert gpus.joules(uuids[0], clock()) is not None
    library.gpus[0].since_load_mj += 1000 * 300 * 20
    clock.advance(20)
    with pytest.raises(SbpTuneError, match="limit of 120 W"):
        gpus.joules(uuids[0], clock())


def test_a_failed_sample_is_told_by_the_next_reading(library, nvml, clock, uuids):
    library.gpus[0].unsupported = {"energy"}
    gpus = NvidiaGpus(nvml, clock())
    library.gpus[0].lost = True
    gpus.sample(clock())
    library.gpus[0].lost = False
    with pytest.raises(SbpTuneError, match="GPU is lost"):
        gpus.joules(uuids[0], clock())
    assert gpus.utilization(uuids[0]) is None


def test_without_a_driver_there_is_no_part(library, clock):
    library.gpus = []
    assert NvidiaGpus(Nvml(library), clock()).parts == {}
