from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbp_tune.energy.counters.rapl import Rapl, find_zones, unwrapped
from sbp_tune.errors import SbpTuneError


def server(rapl, packages: int = 2) -> None:
    for number in range(packages):
        rapl.zone(f"intel-rapl:{number}", f"package-{number}", uj=5_000_000 * (number + 1))
        rapl.zone(f"intel-rapl:{number}:0", "core")
        rapl.zone(f"intel-rapl:{number}:1", "dram", uj=2_000_000)


def test_packages_and_their_memory_are_two_parts(rapl, clock):
    server(rapl)
    counter = Rapl(clock(), rapl.root)
    clock.advance(1)
    for folder, joules in [("intel-rapl:0", 100), ("intel-rapl:1", 80), ("intel-rapl:0:1", 12), ("intel-rapl:1:1", 8)]:
        rapl.use(folder, joules)
    rapl.use("intel-rapl:0:0", 60)  # a core is in its package
    assert counter.joules("cpu", clock()) == pytest.approx(180)
    assert counter.joules("dram", clock()) == pytest.approx(20)
    assert counter.parts["cpu"].source == counter.parts["dram"].source == "counter"
    assert counter.parts["cpu"].name == "RAPL package-0, package-1"
    assert "psys" not in counter.parts


def test_the_board_is_recognised_and_added_to_nothing(rapl, clock):
    server(rapl, packages=1)
    rapl.zone("intel-rapl:1", "psys")
    counter = Rapl(clock(), rapl.root)
    clock.advance(1)
    rapl.use("intel-rapl:0", 30)
    rapl.use("intel-rapl:1", 100)
    assert counter.joules("cpu", clock()) == pytest.approx(30)
    assert counter.joules("psys", clock()) == pytest.approx(100)


def test_two_interfaces_to_one_counter_count_once(rapl, clock):
    server(rapl, packages=1)
    rapl.zone("intel-rapl-mmio:0", "package-0", uj=5_000_000)
    rapl.zone("intel-rapl-mmio:0:0", "dram", uj=2_000_000)
    counter = Rapl(clock(), rapl.root)
    clock.advance(1)
    for folder in ("intel-rapl:0", "intel-rapl-mmio:0"):
        rapl.use(folder, 50)
    for folder in ("intel-rapl:0:1", "intel-rapl-mmio:0:0"):
        rapl.use(folder, 5)
    assert counter.joules("cpu", clock()) == pytest.approx(50)
    assert counter.joules("dram", clock()) == pytest.approx(5)


def test_the_memory_mapped_interface_alone_will_do(rapl, clock):
    rapl.zone("intel-rapl-mmio:0", "package-0")
    assert Rapl(clock(), rapl.root).parts["cpu"].source == "counter"


def test_dies_that_mirror_their_package_count_once(rapl, clock):
    for number in range(4):
        rapl.zone(f"intel-rapl:{number}", f"package-{number // 2}-die-{number % 2}", uj=7_000_000 + number // 2)
        rapl.zone(f"intel-rapl:{number}:0", "dram")
    counter = Rapl(clock(), rapl.root)
    clock.advance(1)
    for number in range(4):
        rapl.use(f"intel-rapl:{number}", 90)
        rapl.use(f"intel-rapl:{number}:0", 9)
    assert counter.joules("cpu", clock()) == pytest.approx(180)
    assert counter.joules("dram", clock()) == pytest.approx(18)  # the memory behind a mirror is one as well
    assert counter.parts["cpu"].name == "RAPL package-0-die-0, package-1-die-0"


def test_dies_with_counters_of_their_own_are_added(rapl, clock):
    rapl.zone("intel-rapl:0", "package-0-die-0", uj=7_000_000)
    rapl.zone("intel-rapl:1", "package-0-die-1", uj=7_000_001)
    counter = Rapl(clock(), rapl.root)
    clock.advance(1)
    rapl.use("intel-rapl:0", 90)
    rapl.use("intel-rapl:1", 60)
    assert counter.joules("cpu", clock()) == pytest.approx(150)


def test_packages_that_happen_to_read_the_same_are_not_mirrors(rapl, clock):
    for number in range(2):
        rapl.zone(f"intel-rapl:{number}", f"package-{number}")
    counter = Rapl(clock(), rapl.root)
    clock.advance(1)
    for number in range(2):
        rapl.use(f"intel-rapl:{number}", 10)
    assert counter.joules("cpu", clock()) == pytest.approx(20)


def test_amds_zones_have_intels_names_and_no_memory(rapl, clock):
    rapl.zone("intel-rapl:0", "package-0")
    rapl.zone("intel-rapl:0:0", "core")
    counter = Rapl(clock(), rapl.root)
    clock.advance(1)
    rapl.use("intel-rapl:0", 65)
    assert counter.joules("cpu", clock()) == pytest.approx(65)
    assert counter.parts["dram"].source == "none"
    assert counter.joules("dram", clock()) is None


def test_memory_of_some_packages_is_not_memory(rapl, clock):
    server(rapl)
    rapl.zone("intel-rapl:2", "package-2")
    counter = Rapl(clock(), rapl.root)
    assert counter.parts["dram"].source == "none"
    assert "not every one of package-0, package-1, package-2 has a dram zone" in counter.parts["dram"].reason


def test_a_counter_that_starts_again_goes_on(rapl, clock):
    rapl.zone("intel-rapl:0", "package-0", uj=65_532_000_000, span_uj=65_532_610_987)
    counter = Rapl(clock(), rapl.root)
    total = 0
    for _ in range(1000):
        clock.advance(1)
        rapl.use("intel-rapl:0", 190.5)
        total += 190.5
        assert counter.joules("cpu", clock()) == pytest.approx(total)
    assert total > 2 * 65_532


@given(st.integers(1, 2**40), st.data())
def test_any_increments_below_the_range_are_found_again(span, data):
    start = data.draw(st.integers(0, span - 1))
    increments = data.draw(st.lists(st.integers(0, span - 1), max_size=30))
    last, total = start, 0
    for increment in increments:
        raw = (last + increment) % span
        total += unwrapped(last, raw, span)
        last = raw
    assert total == sum(increments)


def test_a_counter_that_was_reset_is_an_error_and_not_a_wrap(rapl, clock):
    zone = rapl.zone("intel-rapl:0", "package-0", uj=100_000_000_000)
    counter = Rapl(clock(), rapl.root)
    clock.advance(1)
    (zone / "energy_uj").write_text("5\n")
    with pytest.raises(SbpTuneError, match=r"RAPL package-0: mean power \d+ W .* cannot be right"):
        counter.joules("cpu", clock())


def test_a_gap_in_which_the_counter_may_have_wrapped_twice_is_an_error(rapl, clock):
    rapl.zone("intel-rapl:0", "package-0", span_uj=65_532_610_987)
    counter = Rapl(clock(), rapl.root)
    clock.advance(600)
    rapl.use("intel-rapl:0", 1000)
    with pytest.raises(SbpTuneError, match="not read for 600 s, in which its counter may have wrapped twice"):
        counter.joules("cpu", clock())


def test_a_counter_that_stands_still_is_an_error(rapl, clock):
    rapl.zone("intel-rapl:0", "package-0")
    counter = Rapl(clock(), rapl.root)
    clock.advance(2)
    with pytest.raises(SbpTuneError, match=r"RAPL package-0: energy counter did not move for 2\.0 s"):
        counter.joules("cpu", clock())


def test_a_counter_at_0_is_no_counter(rapl, clock):
    rapl.zone("intel-rapl:0", "package-0", uj=0)
    counter = Rapl(clock(), rapl.root)
    assert counter.parts["cpu"].source == "none"
    assert "package-0 stands at 0" in counter.parts["cpu"].reason


def forbid(monkeypatch, what: str) -> None:
    """Root may read anything, so the refusal must be played."""
    read = Path.read_text

    def refuse(path: Path, *args: object, **options: object) -> str:
        if path.name == "energy_uj" and what in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", refuse)


@pytest.mark.parametrize("what", ["intel-rapl", "intel-rapl:1/"])
def test_what_only_root_may_read_has_a_reason_that_says_how_to_allow_it(what, rapl, clock, monkeypatch):
    server(rapl)
    forbid(monkeypatch, what)
    counter = Rapl(clock(), rapl.root)
    assert counter.parts["cpu"].source == "none"  # also with one package left: a part is not the whole
    assert counter.joules("cpu", clock()) is None
    assert "readable by root only" in counter.parts["cpu"].reason
    assert "sudo chmod" in counter.parts["cpu"].reason


def test_mirrored_dies_that_only_root_may_read_have_the_same_reason(rapl, clock, monkeypatch):
    for number in range(2):
        rapl.zone(f"intel-rapl:{number}", f"package-0-die-{number}")
    forbid(monkeypatch, "intel-rapl")
    assert "sudo chmod" in Rapl(clock(), rapl.root).parts["cpu"].reason


def test_a_right_withdrawn_in_the_middle_is_a_clear_error(rapl, clock, monkeypatch):
    server(rapl, packages=1)
    counter = Rapl(clock(), rapl.root)
    forbid(monkeypatch, "intel-rapl:0/energy_uj")
    clock.advance(0.5)
    with pytest.raises(SbpTuneError, match=r"RAPL package-0: the right to read it was withdrawn.*sudo chmod"):
        counter.joules("cpu", clock())
    rapl.use("intel-rapl:0:1", 3)
    assert counter.joules("dram", clock()) == pytest.approx(3)


def test_a_zone_that_disappears_is_a_clear_error(rapl, clock):
    zone = rapl.zone("intel-rapl:0", "package-0")
    counter = Rapl(clock(), rapl.root)
    (zone / "energy_uj").unlink()
    with pytest.raises(SbpTuneError, match="RAPL package-0: can no longer be read"):
        counter.joules("cpu", clock())


def test_nonsense_is_no_counter(rapl, clock):
    zone = rapl.zone("intel-rapl:0", "package-0")
    (zone / "max_energy_range_uj").unlink()
    assert "cannot be read" in Rapl(clock(), rapl.root).parts["cpu"].reason
    (rapl.root / "intel-rapl:x").mkdir()
    (rapl.root / "intel-rapl:7").mkdir()
    assert [zone.name for zone in find_zones(rapl.root)] == ["package-0", ""]


@pytest.mark.parametrize("exists", [True, False])
def test_a_machine_without_rapl(exists, tmp_path, clock):
    counter = Rapl(clock(), tmp_path if exists else tmp_path / "none")
    assert {part.source for part in counter.parts.values()} == {"none"}
    assert "there is no RAPL" in counter.parts["cpu"].reason
