"""A run of its own where RAPL is readable: 100 W and 10 W of memory on a machine of which the run is a part."""

from __future__ import annotations

import os

import pytest

from sbp_tune.energy.counters.rapl import PERMISSION
from sbp_tune.errors import SbpTuneError

CORES = os.cpu_count() or 1
KWH = 3.6e6


@pytest.fixture
def server(rapl):
    """Two packages with memory; `use(seconds)` is what they draw, half each."""
    for number in range(2):
        rapl.zone(f"intel-rapl:{number}", f"package-{number}")
        rapl.zone(f"intel-rapl:{number}:0", "dram")

    def use(seconds, cpu_w=100.0, dram_w=10.0):
        for number in range(2):
            rapl.use(f"intel-rapl:{number}", seconds * cpu_w / 2)
            rapl.use(f"intel-rapl:{number}:0", seconds * dram_w / 2)

    rapl.draw = use
    return rapl


@pytest.fixture
def run(server, clock):
    """Time passes, while the machine draws its power."""

    def go(seconds, **watts):
        clock.advance(seconds)
        server.draw(seconds, **watts)

    return go


def joules(reading):
    return {name: part.kwh * KWH for name, part in reading.components.items()}


def test_a_run_alone_is_billed_what_rapl_counts(meter, server, run):
    with meter(powercap=server.root) as energy:
        run(50)
    reading = energy.read()
    assert {name: part.source for name, part in reading.components.items()} == {"cpu": "counter", "ram": "counter"}
    assert joules(reading) == pytest.approx({"cpu": 5000, "ram": 500 * 8 / 64})  # 8 GB of 64
    assert reading.measured_share == 1
    assert reading.components["cpu"].uncertainty == pytest.approx(0.1)


def test_what_other_processes_use_is_not_the_runs(meter, server, host, run):
    host.busy = 4  # cores, of which the run has one
    with meter(powercap=server.root, cpus=0) as energy:
        run(50)
    assert joules(energy.read())["cpu"] == pytest.approx((100 - 10) / 4 * 50)


def test_the_idle_energy_of_the_cores_it_reserved_is_the_runs(meter, server, host, run):
    host.busy = 4
    with meter(powercap=server.root, cpus=CORES / 2) as energy:
        run(50)
    assert joules(energy.read())["cpu"] == pytest.approx((10 / 2 + 90 / 4) * 50)


def test_two_runs_side_by_side_are_together_no_more_than_the_machine(meter, server, host, run):
    host.busy = 2
    with meter(powercap=server.root, cpus=CORES / 2) as one, meter(powercap=server.root, cpus=CORES / 2) as other:
        run(50)
        told = [one.read(), other.read()]
    assert sum(joules(reading)["cpu"] for reading in told) == pytest.approx(5000)


def test_a_counter_that_starts_again_from_0_goes_on(meter, server, rapl, run):
    for zone in rapl.root.glob("intel-rapl:?"):
        (zone / "max_energy_range_uj").write_text("300000000000\n")
        (zone / "energy_uj").write_text("299999000000\n")  # 1 J before its end
    with meter(powercap=server.root) as energy:
        for _ in range(20):
            run(10)
            energy.read()
    assert joules(energy.read())["cpu"] == pytest.approx(20_000)


def test_memory_without_a_counter_is_modelled_and_said_so(meter, rapl, clock):
    rapl.zone("intel-rapl:0", "package-0")
    with meter(powercap=rapl.root) as energy:
        clock.advance(10)
        rapl.use("intel-rapl:0", 500)
    reading = energy.read()
    assert {name: part.source for name, part in reading.components.items()} == {"cpu": "counter", "ram": "model"}
    assert joules(reading) == pytest.approx({"cpu": 500, "ram": 30})


def test_without_the_right_to_read_it_is_modelled(meter, rapl, clock, monkeypatch):
    rapl.zone("intel-rapl:0", "package-0")
    monkeypatch.setattr("sbp_tune.energy.counters.rapl.Zone.energy_uj", _forbidden)
    with meter(powercap=rapl.root) as energy:
        clock.advance(10)
    assert energy.components["cpu"].source == "model"
    assert joules(energy.read())["cpu"] == pytest.approx(160)


def test_a_right_that_is_withdrawn_spoils_the_number_for_good(meter, server, run, monkeypatch):
    energy = meter(powercap=server.root)
    energy.start()
    run(10)
    assert energy.kwh > 0
    with monkeypatch.context() as patch:
        patch.setattr("sbp_tune.energy.counters.rapl.Zone.energy_uj", _forbidden)
        with pytest.raises(SbpTuneError, match=r"the right to read it was withdrawn.*chmod") as error:
            energy.read()
    assert PERMISSION in str(error.value)
    run(10)
    for call in (energy.read, energy.stop, lambda: energy.kwh):
        with pytest.raises(SbpTuneError, match="withdrawn"):
            call()


def test_a_reading_that_cannot_be_true_spoils_the_number_for_good(meter, server, run):
    energy = meter(powercap=server.root)
    with pytest.raises(SbpTuneError, match=r"RAPL package-0: mean power \d+ W .* above its limit of 800 W"), energy:
        run(30, cpu_w=2000)
    with pytest.raises(SbpTuneError, match="above its limit of 800 W"):
        print(energy.kwh)


def _forbidden(zone):
    raise PermissionError(13, "Permission denied")
